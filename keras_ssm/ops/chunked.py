"""A bank of single-input single-output systems applied chunk by chunk: batched matmuls.

With K the kernel, T the chunk size and x the state before a chunk with inputs U,

    Y  = Toeplitz(K[0..T)) U + E_out x      E_out[i] = C dA^(i + 1)
    x' = dA^T x + E_in U                    E_in[j]  = dA^(T - 1 - j) dB

The second direction of a bidirectional bank reads the samples after the current one.
"""

import numpy as np
from keras import ops

from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.toeplitz import toeplitz

DEFAULT_CHUNK_SIZE = 128


def chunked(
    u,
    bank,
    initial_state=None,
    lengths=None,
    bidirectional=False,
    chunk_size=None,
    return_state=False,
):
    """Applies a bank of single-input single-output systems to a sequence.

    Args:
        u: tensor `(batch, length, features)`. Inputs, zero from each row's length on.
        bank: `DiagonalBank` or `DenseBank`; with twice the output channels if bidirectional,
            the forward ones first.
        initial_state: tensor `(batch, features, states)` or `None` (zero).
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row, for
            the final state. `None` means all of them.
        bidirectional: bool. Whether later samples contribute through the second half of the
            channels; the current one counts in the first half only.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        return_state: bool. Whether the final state is computed.

    Returns:
        Tuple `(y, state)`: `(batch, length, channels * features)` and
        `(batch, features, states)` or `None`.

    Example:
        ```python
        one = ops.ones((1, 1, 1))
        bank = keras_ssm.ops.DenseBank(-0.5 * one, one[0], one)
        y, state = chunked(ops.ones((1, 3, 1)), bank, return_state=True)  # 1, 1.5, 1.75
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """
    length, states = u.shape[1], bank.state_size
    T = chunk_size or even_chunk(length)
    T = T if length is None else min(T, length)
    u_chunks = cut(u, T)  # (features, batch, chunks, T)
    into_state = bank.into_state(T)  # (features, states, T)
    K = exact_einsum("chn,hnt->hct", bank.readout, into_state)
    earlier = ops.zeros_like(K[..., :-1])
    if bidirectional:
        channels = K.shape[1] // 2
        K, earlier = K[:, :channels], ops.flip(K[:, channels:, :-1], axis=-1)
    response = chunk_response(K, earlier)
    stateless = initial_state is None and not return_state and not bidirectional
    if stateless and length == T:
        return glue(ops.einsum("hbmt,htk->hbmk", u_chunks, response), length, T), None

    E_in = ops.transpose(ops.flip(into_state, axis=-1), (0, 2, 1))
    columns = [response, E_in]
    if bidirectional:
        columns.append(ops.flip(E_in, axis=1))
    product = ops.einsum("hbmt,htk->hbmk", u_chunks, ops.concatenate(columns, axis=-1))
    width = response.shape[-1]
    y = product[..., :width]

    zero = ops.zeros_like(product[:, :, 0, :states])
    start = zero if initial_state is None else ops.transpose(initial_state, (1, 0, 2))
    boundaries = bank.boundary_states(T, product[..., width : width + states], start)
    carried, rows = boundaries[:, :, :-1], _half(bank.readout, 0, bidirectional)
    E_out = merge_channels(bank.from_state(rows, 1, T))
    if bidirectional:
        later = product[..., width + states :]
        back = bank.boundary_states(T, later, zero, reverse=True)[:, :, 1:]
        carried = ops.concatenate([carried, back], axis=-1)
        rows = bank.from_state(_half(bank.readout, 1, True), 0, T)
        E_out = ops.concatenate([E_out, merge_channels(ops.flip(rows, axis=-1))], axis=1)
    y = y + ops.einsum("hbmn,hnk->hbmk", carried, E_out)

    state = None
    if return_state:
        state = _final_state(u_chunks, boundaries, bank, E_in, length, lengths, ops.shape(u)[1])
    return glue(y, ops.shape(u)[1] if length is None else length, T), state


def even_chunk(length):
    """A chunk of at most the default size that leaves little padding: 129 steps are 2 of 65."""
    if length is None:
        return DEFAULT_CHUNK_SIZE
    return -(-length // -(-length // DEFAULT_CHUNK_SIZE))


def cut(u, T):
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


def glue(y, length, T):
    """Undoes `cut` for outputs `(features, batch, chunks, channels * T)`."""
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


def _half(rows, index, bidirectional):
    if not bidirectional:
        return rows
    channels = rows.shape[0] // 2
    return rows[index * channels : (index + 1) * channels]


def chunk_response(K, earlier):
    """The Toeplitz matrix of a chunk, channel after channel, `(features, T, channels * T)`.

    K `(features, channels, T)` are the kernel entries from lag 0 on, `earlier` those of lags
    -(T - 1) to -1.
    """
    matrices = toeplitz(ops.concatenate([earlier, K], axis=-1))  # (features, channels, T, T)
    features, channels, T, _ = matrices.shape
    return ops.reshape(ops.transpose(matrices, (0, 2, 1, 3)), (features, T, channels * T))


def merge_channels(rows):
    """`(channels, features, states, T)` to a matrix `(features, states, channels * T)`."""
    channels, features, states, T = rows.shape
    return ops.reshape(ops.transpose(rows, (1, 2, 0, 3)), (features, states, channels * T))


def _final_state(u_chunks, boundaries, bank, E_in, length, lengths, dynamic_length):
    """The state after each row's last valid step.

    That is the state before the chunk in which a row ends, taken over the remaining steps,
    and what these steps add.
    """
    T = E_in.shape[1]
    if lengths is None and length is not None:
        whole, rest = divmod(length, T)
        state = boundaries[:, :, whole]
        if rest:
            added = exact_einsum("hbt,htn->hbn", u_chunks[:, :, whole, :rest], E_in[:, T - rest :])
            state = bank.advance(state, rest) + added
        return ops.transpose(state, (1, 0, 2))
    if lengths is None:
        lengths = ops.broadcast_to(dynamic_length, (ops.shape(u_chunks)[1],))
    lengths = ops.cast(lengths, "int32")
    whole, rest = lengths // T, lengths % T
    chunks = ops.shape(u_chunks)[2]
    here = ops.arange(0, chunks + 1)[None] == whole[:, None]  # (batch, chunks + 1)
    state = ops.sum(ops.where(here[None, ..., None], boundaries, 0.0), axis=2)
    last = ops.sum(ops.where(here[None, :, :chunks, None], u_chunks, 0.0), axis=2)
    # The remaining inputs, moved to the end of a chunk: E_in then weighs them as the last ones.
    lag = ops.convert_to_tensor(np.arange(T)[:, None] - np.arange(T)[None] - T, dtype="int32")
    shift = ops.cast(lag[None] + rest[:, None, None] == 0, last.dtype)  # (batch, T, T)
    added = exact_einsum("hbs,bts,htn->hbn", last, shift, E_in)
    return ops.transpose(bank.advance(state, rest, most=T - 1) + added, (1, 0, 2))
