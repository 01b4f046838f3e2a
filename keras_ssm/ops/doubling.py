"""Recurrences in a fixed number of doublings, for graphs that other programs read.

Such programs have no lists of tensors that grow in a loop. In doubling k every step receives, times
a^(2^k), what the step 2^k before it holds: log2(steps) passes over the whole sequence.
"""

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known, longest, loops_allowed

# Steps of a recurrence that are unrolled where there are no loops.
LONGEST_UNROLLED = 16


def needed(count):
    """Whether a recurrence of `count` steps (a size of a shape) has to be doublings.

    PyTorch has no loop over an unknown number of steps, whatever the graph is for.
    """
    count = known(count)
    if count is None:
        return not loops_allowed() or not backend.loops_over_unknown_steps()
    return not loops_allowed() and count > LONGEST_UNROLLED


def states(a, added, initial, times, squared, axis, reverse=False, steps=1):
    """The states of x_m = a x_(m-1) + s_m, the one before the first step included.

    Args:
        a: tensor. Transition of every step, or of each step along `axis`.
        added: tensor. What each step adds.
        initial: tensor without `axis`. State before the first step.
        times: function `(a, x)` that applies transitions to states.
        squared: function `(a, shifted)` that returns the transitions of 2n steps, given those
            of n and a function that moves a tensor n steps on.
        axis: int. The axis of the steps, counted from the front.
        reverse: bool. Whether the recurrence runs from the last step to the first.
        steps: int. Steps of the sequence in one of the recurrence.

    Returns:
        Tensor with one step more than `added`, at the front (at the end if `reverse`).
    """
    count = known(added.shape[axis])
    most = -(-longest() // steps) if count is None else count
    parts = [ops.expand_dims(initial, axis), added]
    x = ops.concatenate(parts[::-1] if reverse else parts, axis=axis)
    size = ops.shape(x)[axis]
    if len(a.shape) == len(x.shape) and known(a.shape[axis]) != 1:
        a = ops.pad(a, _widths(a, axis, 1, reverse))
    for k in range(most.bit_length()):
        move = _mover(2**k, size, axis, reverse)
        x = x + times(a, move(x))
        a = squared(a, move)
    if count is None:
        # A longer sequence would lose early inputs without a word, so its output is made NaN. The
        # steps are counted: PyTorch would settle a comparison of sizes when it exports.
        line = x[tuple(slice(None) if i == axis else slice(1) for i in range(len(x.shape)))]
        covered = ops.sum(ops.ones_like(line, dtype="int32")) <= 2 ** most.bit_length()
        x = ops.where(covered, x, np.nan)
    return x


def _mover(steps, size, axis, reverse):
    """The function that moves a tensor by `steps` along `axis`; zeros come in."""
    window = slice(steps, None) if reverse else slice(0, size)
    return lambda x: ops.pad(x, _widths(x, axis, steps, reverse))[(*[slice(None)] * axis, window)]


def _widths(x, axis, steps, reverse):
    widths = [(0, 0)] * len(x.shape)
    widths[axis] = (0, steps) if reverse else (steps, 0)
    return widths
