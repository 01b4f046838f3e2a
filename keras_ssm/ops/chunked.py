"""Which way a bank of systems is applied to a sequence in chunks.

`chunk_pass.py` has the algorithm. A kernel of the backend takes the whole sequence where there is
one; else a function of the backend takes the matrices; else the features go through in blocks,
or all at once.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_ssm.ops import backend, exporting
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.chunk_matrices import ChunkMatrices
from keras_ssm.ops.chunk_pass import chunk_matrices, chunk_pass
from keras_ssm.ops.chunks import even_chunk, merge_chunks, split_chunks
from keras_ssm.ops.exporting import known
from keras_ssm.ops.feature_blocks import block_size, in_blocks
from keras_ssm.types import Tensor


def chunked(
    u: Tensor,
    bank,
    initial_state: Tensor = None,
    lengths: Tensor = None,
    bidirectional: bool = False,
    chunk_size: int | None = None,
    return_state: bool = False,
    D: Tensor = None,
) -> tuple:
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
    portable = functools.partial(_in_chunks, chunk_size=chunk_size, **options)
    if not exporting.loops_allowed() or known(u.shape[1]) is None:
        return portable(u, bank, initial_state, D)
    fused = backend.fused_bank(u, bank, initial_state, **options, D=D, portable=portable)
    if fused is not None:
        return fused
    if keras.backend.standardize_dtype(u.dtype) in ("bfloat16", "float16"):
        u = ops.cast(u, "float32")
    return portable(u, bank, initial_state, D)


def _in_chunks(u, bank, initial_state, D, lengths, bidirectional, return_state, chunk_size):
    """`chunked` in operations that every backend has."""
    length = known(u.shape[1])
    T = chunk_size or even_chunk(length)
    T = T if length is None else min(T, length)
    to_every_length = return_state and (lengths is not None or length is None)
    rest = 0 if length is None else length % T
    if return_state and rest and not to_every_length:
        return _with_short_end(u, bank, initial_state, D, bidirectional, T, rest)
    if initial_state is None and not return_state:
        bank = bank.normalised()
        if length == T:
            matrices = chunk_matrices(bank, T, bidirectional, D, single=True)
            return merge_chunks(chunk_pass(split_chunks(u, T), matrices)[0], length, T), None
    initial = None if initial_state is None else ops.transpose(initial_state, (1, 0, 2))
    size = 0 if to_every_length else block_size(u)
    if size:
        y, state = in_blocks(u, bank, T, bidirectional, D, initial, size)
    else:
        matrices = chunk_matrices(bank, T, bidirectional, D)
        if to_every_length:
            return _to_every_length(u, bank, matrices, initial, lengths, T)
        y, state = _at_once(u, matrices, initial, T)
    return y, ops.transpose(state, (1, 0, 2)) if return_state else None


def _with_short_end(u, bank, initial_state, D, bidirectional, T, rest):
    """Whole chunks, and a short one of its own: padding would move the state."""
    options = {"lengths": None, "bidirectional": bidirectional, "return_state": True}
    whole = u.shape[1] - rest
    y, state = _in_chunks(u[:, :whole], bank, initial_state, D, **options, chunk_size=T)
    end, state = _in_chunks(u[:, whole:], bank, state, D, **options, chunk_size=rest)
    return ops.concatenate([y, end], axis=1), state


def _at_once(u, matrices, initial, T):
    """Outputs `(batch, length, channels * features)`, and the last state."""
    if exporting.loops_allowed() and known(u.shape[1]) is not None:
        fused = backend.fused_chunks(u, T, matrices, initial, functools.partial(all_features, T=T))
        if fused is not None:
            return fused
    return all_features(u, matrices, initial, T)


def all_features(u: Tensor, matrices: ChunkMatrices, initial: Tensor, T: int) -> tuple:
    """`_at_once` in operations that every backend has."""
    length = known(u.shape[1])
    y, _, state = chunk_pass(split_chunks(u, T), matrices, initial)
    return merge_chunks(y, ops.shape(u)[1] if length is None else length, T), state


def _to_every_length(u, bank, matrices, initial, lengths, T):
    """Outputs, and the state after each row's last valid step."""
    length, dynamic = known(u.shape[1]), ops.shape(u)[1]
    u_chunks = split_chunks(u, T)
    y, before, last = chunk_pass(u_chunks, matrices, initial)
    boundaries = ops.concatenate([before, last[:, :, None]], axis=2)
    state = _final_state(u_chunks, boundaries, bank, matrices.E_in, lengths, dynamic)
    return merge_chunks(y, dynamic if length is None else length, T), state


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
    at_length = ops.arange(0, chunks + 1)[None] == whole[:, None]  # (batch, chunks + 1)
    state = ops.sum(ops.where(at_length[None, ..., None], boundaries, 0.0), axis=2)
    last = ops.sum(ops.where(at_length[None, :, :chunks, None], u_chunks, 0.0), axis=2)
    # The remaining inputs are moved to the end of a chunk, where E_in weighs them as the last.
    lag = ops.convert_to_tensor(np.arange(T)[:, None] - np.arange(T)[None] - T, dtype="int32")
    shift = ops.cast(lag[None] + rest[:, None, None] == 0, last.dtype)  # (batch, T, T)
    added = exact_einsum("hbs,bts,htn->hbn", last, shift, E_in)
    return ops.transpose(bank.advance(state, rest, most=T - 1) + added, (1, 0, 2))
