"""Loops over the steps of `(..., steps, 2, modes)` that read and write in place, for XLA.

Real and imaginary parts are rows of their own, as `pair.multiplier` takes them.
"""

from keras import ops


def over_steps(one, steps, reverse, *carry):
    """Runs `carry = one(t, *carry)` from the first step to the last, or the other way round."""
    at = lambda i: steps - 1 - i if reverse else i  # noqa: E731
    return ops.fori_loop(0, steps, lambda i, carry: one(at(i), *carry), carry)


def states_after(times_a, added, initial, reverse):
    """The states of x' = a x + added, after each step and after the last.

    A state takes the place of what was added to it, which has been read by then: XLA sees that
    nothing has to be copied.

    Args:
        times_a: function of a state.
        added: tensor `(..., steps, 2, modes)`.
        initial: tensor `(..., 2, modes)`.
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tuple `(after, last)`: tensors of the shapes of `added` and `initial`.
    """

    def one(t, after, state):
        state = times_a(state) + at_step(after, t)
        return with_step(after, state, t), state

    return over_steps(one, added.shape[-3], reverse, added, initial)


def states_before(times_a, added, initial, reverse):
    """The same states, before each step and after the last."""
    after, last = states_after(times_a, added, initial, reverse)
    start = initial[..., None, :, :]
    parts = [after[..., 1:, :, :], start] if reverse else [start, after[..., :-1, :, :]]
    return ops.concatenate(parts, axis=-3), last


def at_step(x, t):
    """Step t of a tensor `(..., steps, 2, modes)`."""
    shape = (*ops.shape(x)[:-3], 1, *x.shape[-2:])
    return ops.squeeze(ops.slice(x, _place(x, t), shape), axis=-3)


def with_step(x, value, t):
    """A tensor `(..., steps, 2, modes)` with another step t."""
    return ops.slice_update(x, _place(x, t), ops.expand_dims(value, axis=-3))


def _place(x, t):
    return (*[0] * (len(x.shape) - 3), t, 0, 0)
