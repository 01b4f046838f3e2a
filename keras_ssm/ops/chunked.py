"""A bank of diagonal systems applied chunk by chunk: all of it batched matmul.

With K the kernel, T the chunk size and x the state before a chunk with inputs U,

    Y  = Toeplitz(K[0..T)) U + E_out x      E_out[i] = 2 Re(C dA^(i + 1))
    x' = dA^T x + E_in U                    E_in[j]  = dA^(T - 1 - j) dB

The second direction of a bidirectional bank reads the samples after the current one.
"""

import numpy as np
from keras import ops

from keras_ssm.ops import pair
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.powers import powers
from keras_ssm.ops.scan import boundary_states
from keras_ssm.ops.toeplitz import toeplitz

DEFAULT_CHUNK_SIZE = 128


def chunked(
    u,
    log_dA,
    dB,
    C,
    initial_state=None,
    lengths=None,
    bidirectional=False,
    chunk_size=None,
    return_state=False,
):
    """Applies a bank of diagonal single-input single-output systems to a sequence.

    Args:
        u: tensor `(batch, length, features)`. Inputs, zero from each row's length on.
        log_dA: pair of tensors `(features, modes)`. Logarithm of the state transition.
        dB: pair of tensors `(features, modes)`. Discrete input vectors.
        C: pair of tensors `(channels, features, modes)`. Output vectors; `(2 channels, ...)`
            if bidirectional, the forward ones first.
        initial_state: tensor `(batch, features, 2 modes)` or `None` (zero).
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row, for
            the final state. `None` means all of them.
        bidirectional: bool. Whether later samples contribute through the second half of C;
            the current one counts in the first half only.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        return_state: bool. Whether the final state is computed.

    Returns:
        Tuple `(y, state)`: `(batch, length, channels * features)` and
        `(batch, features, 2 modes)` or `None`.

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """
    length = u.shape[1]
    T = chunk_size or _even_chunk(length)
    T = T if length is None else min(T, length)
    modes = log_dA[0].shape[-1]
    u_chunks = _cut(u, T)  # (features, batch, chunks, T)
    table = powers(log_dA, np.arange(T + 1))  # (features, modes, T + 1)

    into_state = pair.multiply((dB[0][..., None], dB[1][..., None]), _steps(table, 0, T))
    into_state = ops.concatenate(into_state, axis=1)  # (features, 2 modes, T)
    response = _chunk_response(C, into_state, bidirectional)  # (features, T, channels * T)
    stateless = initial_state is None and not return_state and not bidirectional
    if stateless and length == T:
        return _glue(ops.einsum("hbmt,htk->hbmk", u_chunks, response), length, T), None

    E_in = ops.transpose(ops.flip(into_state, axis=-1), (0, 2, 1))
    columns = [response, E_in]
    if bidirectional:
        columns.append(ops.flip(E_in, axis=1))
    product = ops.einsum("hbmt,htk->hbmk", u_chunks, ops.concatenate(columns, axis=-1))
    width = response.shape[-1]
    y = product[..., :width]

    over_chunk = pair.join((table[0][..., T], table[1][..., T]))[:, None]
    zero = ops.zeros_like(product[:, :, 0, : 2 * modes])
    start = zero if initial_state is None else ops.transpose(initial_state, (1, 0, 2))
    states = boundary_states(over_chunk, product[..., width : width + 2 * modes], start)
    carried, readout = states[:, :, :-1], _readout(_half(C, 0, bidirectional), table, 1)
    if bidirectional:
        later = product[..., width + 2 * modes :]
        back = boundary_states(over_chunk, later, zero, reverse=True)[:, :, 1:]
        carried = ops.concatenate([carried, back], axis=-1)
        backwards = _readout(_half(C, 1, True), table, 0, reverse=True)
        readout = ops.concatenate([readout, backwards], axis=1)
    y = y + ops.einsum("hbmn,hnk->hbmk", carried, readout)

    state = None
    if return_state:
        state = _final_state(u_chunks, states, log_dA, E_in, length, lengths, ops.shape(u)[1])
    return _glue(y, ops.shape(u)[1] if length is None else length, T), state


def _even_chunk(length):
    """A chunk of at most the default size that leaves little padding: 129 steps are 2 of 65."""
    if length is None:
        return DEFAULT_CHUNK_SIZE
    return -(-length // -(-length // DEFAULT_CHUNK_SIZE))


def _cut(u, T):
    """Pads to whole chunks and moves the features in front."""
    batch, length, features = u.shape
    if length is None:
        chunks = (ops.shape(u)[1] + T - 1) // T
        u = ops.pad(u, [(0, 0), (0, T - 1), (0, 0)])[:, : chunks * T]
    else:
        chunks = -(-length // T)
        u = ops.pad(u, [(0, 0), (0, chunks * T - length), (0, 0)])
    if batch is None and length is None:
        batch = ops.shape(u)[0]
    u = ops.reshape(
        u, (-1 if batch is None else batch, -1 if length is None else chunks, T, features)
    )
    return ops.transpose(u, (3, 0, 1, 2))


def _glue(y, length, T):
    """Undoes `_cut` for outputs `(features, batch, chunks, channels * T)`."""
    features, batch, chunks, width = y.shape
    channels = width // T
    if channels == 1:
        y = ops.transpose(y, (1, 2, 3, 0))
    else:
        y = ops.reshape(y, (features, -1, ops.shape(y)[2], channels, T))
        y = ops.transpose(y, (1, 2, 4, 3, 0))
    total = -1 if chunks is None else chunks * T
    lead = ops.shape(y)[0] if batch is None else batch
    return ops.reshape(y, (lead, total, channels * features))[:, :length]


def _steps(table, first, last):
    return table[0][..., first:last], table[1][..., first:last]


def _half(C, index, bidirectional):
    if not bidirectional:
        return C
    channels = C[0].shape[0] // 2
    part = slice(index * channels, (index + 1) * channels)
    return C[0][part], C[1][part]


def _chunk_response(C, into_state, bidirectional):
    """The Toeplitz matrix of the first T kernel entries, channel after channel."""
    weights = ops.concatenate([C[0], -C[1]], axis=-1)
    K = 2.0 * exact_einsum("chn,hnt->hct", weights, into_state)
    if bidirectional:
        channels = K.shape[1] // 2
        K, earlier = K[:, :channels], ops.flip(K[:, channels:, :-1], axis=-1)
    else:
        earlier = ops.zeros_like(K[..., :-1])
    matrices = toeplitz(ops.concatenate([earlier, K], axis=-1))  # (features, channels, T, T)
    features, channels, T, _ = matrices.shape
    return ops.reshape(ops.transpose(matrices, (0, 2, 1, 3)), (features, T, channels * T))


def _readout(C, table, first, reverse=False):
    """2 Re(C dA^l x) as a matrix on real states, for the T powers from `first` on."""
    T = table[0].shape[-1] - 1
    steps = _steps(table, first, first + T)
    if reverse:
        steps = ops.flip(steps[0], axis=-1), ops.flip(steps[1], axis=-1)
    re, im = pair.multiply((C[0][..., None], C[1][..., None]), steps)
    matrix = 2.0 * ops.concatenate([re, -im], axis=2)  # (channels, features, 2 modes, T)
    channels, features, states, _ = matrix.shape
    return ops.reshape(ops.transpose(matrix, (1, 2, 0, 3)), (features, states, channels * T))


def _final_state(u_chunks, states, log_dA, E_in, length, lengths, dynamic_length):
    """The state after each row's last valid step.

    That is the state before the chunk in which a row ends, taken over the remaining steps,
    and what these steps add.
    """
    T = E_in.shape[1]
    if lengths is None and length is not None:
        whole, rest = divmod(length, T)
        state = states[:, :, whole]
        if rest:
            decay = powers(log_dA, np.array([rest]))
            decay = pair.join((decay[0][..., 0], decay[1][..., 0]))[:, None]
            added = exact_einsum("hbt,htn->hbn", u_chunks[:, :, whole, :rest], E_in[:, T - rest :])
            state = pair.join(pair.multiply(pair.split(decay), pair.split(state))) + added
        return ops.transpose(state, (1, 0, 2))
    if lengths is None:
        lengths = ops.broadcast_to(dynamic_length, (ops.shape(u_chunks)[1],))
    lengths = ops.cast(lengths, "int32")
    whole, rest = lengths // T, lengths % T
    chunks = ops.shape(u_chunks)[2]
    here = ops.arange(0, chunks + 1)[None] == whole[:, None]  # (batch, chunks + 1)
    state = ops.sum(ops.where(here[None, ..., None], states, 0.0), axis=2)
    last = ops.sum(ops.where(here[None, :, :chunks, None], u_chunks, 0.0), axis=2)
    # The remaining inputs, moved to the end of a chunk: E_in then weighs them as the last ones.
    lag = ops.convert_to_tensor(np.arange(T)[:, None] - np.arange(T)[None] - T, dtype="int32")
    shift = ops.cast(lag[None] + rest[:, None, None] == 0, last.dtype)  # (batch, T, T)
    added = exact_einsum("hbs,bts,htn->hbn", last, shift, E_in)
    exponent = ops.cast(rest, last.dtype)[None, :, None]
    decay = pair.exp((log_dA[0][:, None] * exponent, log_dA[1][:, None] * exponent))
    state = pair.join(pair.multiply(decay, pair.split(state))) + added
    return ops.transpose(state, (1, 0, 2))
