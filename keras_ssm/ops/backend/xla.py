"""Recurrences in a program of XLA: loops over steps, and over blocks of them side by side.

Loops read and write in place. Tensors inside are `(..., steps, 2, modes)`: real and imaginary
parts are rows of their own, as `pair.multiplier` takes them.
"""

import math

from keras import ops

from keras_ssm.ops import pair


def scan_one_by_one(dA, inputs, initial, reverse):
    """The states of `ops.scan` in place, for a transition that is the same in every step.

    A loop over the first axis would transpose what goes in and out.
    """
    times_a = pair.multiplier(pair.rows(dA[..., 0, :]))
    after, _ = states_after(times_a, pair.rows(inputs), pair.rows(initial), reverse)
    return pair.from_rows(after)


def scan_in_blocks(dA, inputs, initial, reverse):
    """The states of `ops.scan` for a transition that is the same in every step.

    Blocks are read twice: for the state that each adds, and with the right state before it. What
    a loop returns XLA computes once; what it can fuse, such as powers times the state before
    a block, it computes again for each array that is made of the states. Nothing is transposed,
    and real and imaginary parts are rows of their own, as in `pair.multiplier`, throughout.

    Args:
        dA: tensor `(..., 1, 2 modes)`.
        inputs: tensor `(..., steps, 2 modes)`.
        initial: tensor `(..., 2 modes)`.
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tuple `(states, blocks)`: tensor `(..., steps, 2 modes)`, and the same states in blocks, for
        the gradient.
    """
    a = pair.rows(dA[..., 0, :])
    x = _in_blocks(inputs, reverse)
    before = _before_blocks(a, x, pair.rows(initial), reverse)
    x, _ = states_after(pair.multiplier(a[..., None, :, :]), x, before, reverse)
    return _joined(x, inputs.shape[-2], reverse), x


def scan_gradients(dA, states, initial, upstream, reverse):
    """The gradients of `dA`, `inputs` and `initial`, given the states in blocks."""
    a = pair.rows(pair.join(pair.conjugate(pair.split(dA[..., 0, :]))))
    x = _in_blocks(upstream, reverse)
    later = _before_blocks(a, x, ops.zeros_like(pair.rows(initial)), not reverse)
    times_a = pair.multiplier(a[..., None, :, :])

    def one(t, x, later, total):
        # The adjoint of a step multiplies the state of the step before it.
        total = total + pair.multiplier(at_step(states, t), conjugate=True)(later)
        later = times_a(later) + at_step(x, t)
        return with_step(x, later, t), later, total

    total = ops.zeros_like(later)
    x, _, total = over_steps(one, x.shape[-3], not reverse, x, later, total)
    d_inputs = _joined(x, upstream.shape[-2], reverse)
    first = pair.rows(d_inputs[..., -1 if reverse else 0, :])
    total = ops.sum(total, axis=-3) + pair.multiplier(pair.rows(initial), conjugate=True)(first)
    d_dA = pair.from_rows(total)[..., None, :]
    return pair.sum_to(d_dA, dA.shape), d_inputs, pair.from_rows(pair.multiplier(a)(first))


def _before_blocks(a, x, initial, reverse):
    """The state before each block, `(..., blocks, 2, modes)`."""
    steps = x.shape[-3]
    times_a = pair.multiplier(a[..., None, :, :])

    def one(t, state):
        return (times_a(state) + at_step(x, t),)

    (ends,) = over_steps(one, steps, reverse, ops.zeros_like(x[..., 0, :, :]))
    over_block = a
    for _ in range(steps.bit_length() - 1):
        over_block = pair.multiplier(over_block)(over_block)
    return states_before(pair.multiplier(over_block), ends, initial, reverse)[0]


def _in_blocks(x, reverse):
    """`(..., steps, 2 modes)` to `(..., blocks, steps in a block, 2, modes)`, zeros at the end."""
    steps = x.shape[-2]
    # A quarter of the square root was measured; half or twice as much is hardly slower.
    T = 2 ** max(0, round(math.log2(steps) / 2) - 2)
    blocks = -(-steps // T)
    rest = blocks * T - steps
    padding = [(0, 0)] * (len(x.shape) - 2) + [(rest, 0) if reverse else (0, rest), (0, 0)]
    x = pair.rows(ops.pad(x, padding))
    return ops.reshape(x, (*ops.shape(x)[:-3], blocks, T, *x.shape[-2:]))


def _joined(x, steps, reverse):
    """Undoes `_in_blocks`."""
    blocks, T = x.shape[-4:-2]
    x = pair.from_rows(x)
    x = ops.reshape(x, (*ops.shape(x)[:-3], blocks * T, x.shape[-1]))
    return x[..., blocks * T - steps :, :] if reverse else x[..., :steps, :]


def over_steps(body, steps, reverse, *carry):
    """Runs `carry = one(t, *carry)` from the first step to the last, or the other way round."""

    def step(i, carry):
        return body(steps - 1 - i if reverse else i, *carry)

    return ops.fori_loop(0, steps, step, carry)


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
