"""The states of a bank of systems after some of the steps of a sequence."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.chunks import even_chunk, split_chunks
from keras_ssm.ops.exporting import known
from keras_ssm.ops.recurrence import state_passing
from keras_ssm.types import Tensor


def states_after(
    u: Tensor,
    bank,
    counts: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Returns the states of a bank after so many steps of each row.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        bank: `DiagonalBank` or `DenseBank`.
        counts: integer tensor `(batch, places)`, from 0 (before the first step) to `length`.
        initial_state: tensor `(batch, features, states)` or `None` (zero).
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.

    Returns:
        Tensor `(batch, places, features, states)`.

    Example:
        ```python
        one = ops.ones((1, 1, 1))
        bank = keras_ssm.ops.DenseBank(0.0 * one, one[0], one)  # the sum of the inputs
        states = states_after(ops.ones((1, 5, 1)), bank, ops.convert_to_tensor([[0, 2, 5]]))
        # 0, 2, 5
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """
    length = known(u.shape[1])
    T = chunk_size or even_chunk(length)
    T = T if length is None else min(T, length)
    u_chunks = split_chunks(u, T)  # (features, batch, chunks, T)
    E_in = ops.transpose(ops.flip(bank.into_state(T), axis=-1), (0, 2, 1))
    added = exact_einsum("hbct,htn->hbcn", u_chunks, E_in)
    start = ops.zeros_like(added[:, :, 0])
    if initial_state is not None:
        start = ops.transpose(initial_state, (1, 0, 2))
    before, last = state_passing(bank.transition(T), added, start, steps=T)
    boundaries = ops.concatenate([before, last[:, :, None]], axis=2)
    counts = ops.cast(counts, "int32")
    whole, rest = counts // T, counts % T
    state = _taken(boundaries, whole)
    # A count at the end of the last chunk has no rest: whatever is taken there is moved out.
    inputs = _taken(u_chunks, ops.minimum(whole, ops.shape(u_chunks)[2] - 1))
    # The remaining inputs are moved to the end of a chunk, where E_in weighs them as the last.
    lag = ops.convert_to_tensor(np.arange(T)[:, None] - np.arange(T)[None] - T, dtype="int32")
    shift = ops.cast(lag[None, None] + rest[..., None, None] == 0, u.dtype)
    inputs = exact_einsum("hbps,bpts->hbpt", inputs, shift)
    flat = ops.reshape(state, (state.shape[0], -1, state.shape[3]))
    flat = bank.advance(flat, ops.reshape(rest, (-1,)), most=T - 1)
    state = ops.reshape(flat, ops.shape(state)) + exact_einsum("hbpt,htn->hbpn", inputs, E_in)
    return ops.transpose(state, (1, 2, 0, 3))


def _taken(x, places):
    """Entries `(batch, places)` of the third axis of `(features, batch, entries, width)`."""
    features, width = x.shape[0], x.shape[3]
    rows = ops.transpose(x, (1, 2, 0, 3))
    rows = ops.reshape(rows, (*ops.shape(rows)[:2], features * width))
    states = backend.take_steps(rows, places)
    states = ops.reshape(states, (*ops.shape(states)[:2], features, width))
    return ops.transpose(states, (2, 0, 1, 3))
