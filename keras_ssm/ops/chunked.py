"""A bank of single-input single-output systems applied chunk by chunk: batched matmuls.

With K the kernel, T the chunk size and x the state before a chunk with inputs U,

    Y  = Toeplitz(K[0..T)) U + E_out x      E_out[i] = C dA^(i + 1)
    x' = dA^T x + E_in U                    E_in[j]  = dA^(T - 1 - j) dB

The second direction of a bidirectional bank reads the samples after the current one.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_ssm.ops import backend, exporting
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.carry import carry
from keras_ssm.ops.cutting import chunk_response, cut, glue, merge_channels
from keras_ssm.ops.exporting import known
from keras_ssm.ops.powers import with_skip

DEFAULT_CHUNK_SIZE = 64

# On a CPU, features are computed in blocks of about this many numbers, which fit its caches;
# below the second size all at once. `docs/performance.md` has the measurements.
BLOCK_SAMPLES = 2**18
SMALLEST_IN_BLOCKS = 2**19
USUAL_BATCH = 8  # where the batch is not known in advance


def chunked(
    u,
    bank,
    initial_state=None,
    lengths=None,
    bidirectional=False,
    chunk_size=None,
    return_state=False,
    D=None,
):
    """Applies a bank of single-input single-output systems to a sequence.

    Args:
        u: tensor `(batch, length, features)`. Inputs, zero from each row's length on. Of 16 bits
            they are computed with in float32; a GPU may write outputs of 16 bits then.
        bank: `DiagonalBank` or `DenseBank`; with twice the output channels if bidirectional,
            the forward ones first.
        initial_state: tensor `(batch, features, states)` or `None` (zero).
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row, for
            the final state. `None` means all of them.
        bidirectional: bool. Whether later samples contribute through the second half of the
            channels; the current one counts in the first half only.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        return_state: bool. Whether the final state is computed.
        D: tensor `(channels, features)` or `None`. Skip: what a sample adds to its own output.

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
    options = {"lengths": lengths, "bidirectional": bidirectional, "return_state": return_state}
    in_chunks = functools.partial(_in_chunks, chunk_size=chunk_size, **options)
    if not exporting.loops_allowed() or known(u.shape[1]) is None:
        return in_chunks(u, bank, initial_state, D)
    fused = backend.fused_bank(u, bank, initial_state, *options.values(), D, in_chunks)
    if fused is not None:
        return fused
    if keras.backend.standardize_dtype(u.dtype) in ("bfloat16", "float16"):
        u = ops.cast(u, "float32")
    return in_chunks(u, bank, initial_state, D)


def _in_chunks(u, bank, initial_state, D, lengths, bidirectional, return_state, chunk_size):
    """`chunked` in operations that every backend has."""
    length = known(u.shape[1])
    T = chunk_size or even_chunk(length)
    T = T if length is None else min(T, length)
    to_every_length = return_state and (lengths is not None or length is None)
    rest = 0 if length is None else length % T
    if return_state and rest and not to_every_length:
        # A short chunk of its own: padding would move the state.
        part = functools.partial(_in_chunks, bank=bank, D=D, lengths=None, return_state=True)
        part = functools.partial(part, bidirectional=bidirectional)
        y, state = part(u[:, : length - rest], initial_state=initial_state, chunk_size=T)
        tail, state = part(u[:, length - rest :], initial_state=state, chunk_size=rest)
        return ops.concatenate([y, tail], axis=1), state

    if initial_state is None and not return_state:
        bank = bank.normalised()
    alone = length == T and initial_state is None and not return_state
    if alone:
        matrices = chunk_matrices(bank, T, bidirectional, D, alone=True)
        return glue(chunk_pass(cut(u, T), *matrices)[0], length, T), None
    initial = [] if initial_state is None else [ops.transpose(initial_state, (1, 0, 2))]
    block = 0 if to_every_length else block_size(u)
    if block:
        y, state = _in_blocks(u, bank, T, bidirectional, D, initial, block)
    else:
        matrices = chunk_matrices(bank, T, bidirectional, D)
        if to_every_length:
            return _to_every_length(u, bank, matrices, initial, lengths, T)
        y, state = _at_once(u, matrices, initial, T)
    return y, ops.transpose(state, (1, 0, 2)) if return_state else None


def chunk_matrices(bank, T, bidirectional=False, D=None, alone=False):
    """What `chunk_pass` takes after the chunks.

    Args:
        bank: `DiagonalBank` or `DenseBank`.
        T: int. Steps in a chunk.
        bidirectional: bool.
        D: tensor `(channels, features)` or `None`.
        alone: bool. Whether there is a single chunk without a state.

    Returns:
        List of tensors: response, transition, E_in, E_out, and if bidirectional E_in and E_out of
        the recurrence over later chunks.
    """
    into_state = bank.into_state(T)  # (features, states, T)
    K = exact_einsum("chn,hnt->hct", bank.readout, into_state)
    earlier = ops.zeros_like(K[..., :-1])
    if bidirectional:
        channels = K.shape[1] // 2
        K, earlier = K[:, :channels], ops.flip(K[:, channels:, :-1], axis=-1)
    if D is not None:
        K = with_skip(K, ops.transpose(D))
    matrices = [chunk_response(K, earlier)]
    if alone:
        return matrices
    E_in = ops.transpose(ops.flip(into_state, axis=-1), (0, 2, 1))
    rows = bank.from_state(_half(bank.readout, 0, bidirectional), 1, T)
    matrices += [bank.transition(T), E_in, merge_channels(rows)]
    if bidirectional:
        rows = bank.from_state(_half(bank.readout, 1, True), 0, T)
        matrices += [ops.flip(E_in, axis=1), merge_channels(ops.flip(rows, axis=-1))]
    return matrices


def chunk_pass(u, response, transition=None, E_in=None, E_out=None, *others, initial=False):
    """Chunks with their own response and what the state brings.

    Args:
        u: tensor `(features, batch, chunks, T)`.
        response: tensor `(features, T, channels * T)`. Toeplitz matrices.
        transition: tensor, as for `carry`, or `None` for a single chunk without state.
        E_in: tensor `(features, T, states)`.
        E_out: tensor `(features, states, channels * T)`.
        *others: the state before the first chunk `(features, batch, states)` if `initial`; else
            nothing, or E_in and E_out of the recurrence over later chunks.
        initial: bool.

    Returns:
        Tuple `(y, last)`: `(features, batch, chunks, channels * T)`, and the state after the
        last chunk `(features, batch, states)` or `None`.
    """
    y, _, last = _chunks(u, response, transition, E_in, E_out, others, initial)
    return y, last


def _chunks(u, response, transition, E_in, E_out, others, initial):
    features, batch, chunks, _ = _sizes(u)
    batch = ops.shape(u)[1] if batch == chunks == -1 else batch
    flat = lambda x: ops.reshape(x, (features, -1, x.shape[-1]))  # noqa: E731
    in_chunks = lambda x: ops.reshape(x, (features, batch, chunks, x.shape[-1]))  # noqa: E731
    T = u.shape[3]
    u = backend.contiguous(flat(u))
    y = backend.matmul(u, response)
    if transition is None:
        return in_chunks(y), None, None
    added = in_chunks(backend.matmul(u, E_in))
    start = others[0] if initial else ops.zeros_like(added[:, :, 0])
    before, last = carry(transition, added, start, steps=T)
    y = y + backend.matmul(flat(before), E_out)
    if others and not initial:
        added = in_chunks(backend.matmul(u, others[0]))
        later, _ = carry(transition, added, start, reverse=True, steps=T)
        y = y + backend.matmul(flat(later), others[1])
    return in_chunks(y), before, last


def _at_once(u, matrices, initial, T):
    """Outputs `(batch, length, channels * features)`, and the last state."""
    portable = functools.partial(all_features, T, bool(initial))
    if not exporting.loops_allowed() or known(u.shape[1]) is None:
        return portable(u, *matrices, *initial)
    fused = backend.fused_chunks(u, T, matrices, initial, portable)
    return portable(u, *matrices, *initial) if fused is None else fused


def all_features(T, initial, u, *tensors):
    """`_at_once` in operations that every backend has."""
    length = known(u.shape[1])
    y, state = chunk_pass(cut(u, T), *tensors, initial=initial)
    return glue(y, ops.shape(u)[1] if length is None else length, T), state


def _in_blocks(u, bank, T, bidirectional, D, initial, size):
    """`_at_once`, and the matrices before it, for `size` features after another."""
    length, features = u.shape[1:]
    tensors, fixed, rebuild = bank.by_feature(T)
    skip = [] if D is None else [ops.transpose(D)]
    if rebuild is None:
        tensors, skip = chunk_matrices(bank, T, bidirectional, D), []
    static = {"T": T, "bidirectional": bidirectional, "rebuild": rebuild}
    static.update(skip=len(skip), initial=len(initial))
    # A transposition that is fused with nothing else is several times as fast.
    tensors = [ops.transpose(u, (2, 0, 1)), *initial, *skip, *tensors]
    y, state = backend.map_blocks(_block, tensors, fixed, size, **static)
    if y.shape[2] == length:
        return ops.transpose(y, (1, 2, 0)), state
    y = ops.transpose(ops.reshape(y, (features, -1, y.shape[2] // length, length)), (1, 3, 2, 0))
    return ops.reshape(y, (-1, length, y.shape[2] * features)), state


def _block(tensors, fixed, T, bidirectional, rebuild, skip, initial):
    """A block of features: `(features, batch, length)` to outputs, channel after channel."""
    u, *tensors = tensors
    features, _, length = u.shape
    initial, D, tensors = tensors[:initial], tensors[initial:][:skip], tensors[initial + skip :]
    if rebuild is not None:
        D = ops.transpose(D[0]) if D else None
        tensors = chunk_matrices(rebuild(tensors, fixed, T), T, bidirectional, D)
    chunks = -(-length // T)
    u = backend.pad(u, [(0, 0), (0, 0), (0, chunks * T - length)])
    u = ops.reshape(u, (features, -1, chunks, T))
    y, last = chunk_pass(u, *tensors, *initial, initial=bool(initial))
    channels = y.shape[3] // T
    if channels > 1:
        y = ops.transpose(ops.reshape(y, (features, -1, chunks, channels, T)), (0, 1, 3, 2, 4))
    y = ops.reshape(y, (features, -1, channels, chunks * T))[..., :length]
    return ops.reshape(y, (features, -1, channels * length)), last


def block_size(u):
    """The number of features that are computed at a time; 0 for all of them."""
    batch, length, features = u.shape
    if known(length) is None or not exporting.loops_allowed() or not backend.runs_in_blocks():
        return 0
    samples = (known(batch) or USUAL_BATCH) * length
    if samples * features < SMALLEST_IN_BLOCKS:
        return 0
    wanted = max(1, BLOCK_SAMPLES // samples)
    size = max(n for n in range(1, features + 1) if features % n == 0 and n <= wanted)
    return 0 if size == features else size


def _sizes(x):
    """The shape, with -1 for what is not known."""
    return tuple(-1 if known(n) is None else n for n in x.shape)


def _to_every_length(u, bank, matrices, initial, lengths, T):
    """Outputs, and the state after each row's last valid step."""
    length, dynamic = known(u.shape[1]), ops.shape(u)[1]
    u_chunks = cut(u, T)
    y, before, last = _chunks(u_chunks, *matrices[:4], initial, bool(initial))
    boundaries = ops.concatenate([before, last[:, :, None]], axis=2)
    state = _final_state(u_chunks, boundaries, bank, matrices[2], lengths, dynamic)
    return glue(y, dynamic if length is None else length, T), state


def even_chunk(length):
    """A chunk of at most the default size that leaves little padding: 129 steps are 3 of 43."""
    if length is None:
        return DEFAULT_CHUNK_SIZE
    return -(-length // -(-length // DEFAULT_CHUNK_SIZE))


def _half(rows, index, bidirectional):
    if not bidirectional:
        return rows
    channels = rows.shape[0] // 2
    return rows[index * channels : (index + 1) * channels]


def _final_state(u_chunks, boundaries, bank, E_in, lengths, dynamic_length):
    """The state after each row's last valid step.

    That is the state before the chunk in which a row ends, taken over the remaining steps,
    and what these steps add.
    """
    T = E_in.shape[1]
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
