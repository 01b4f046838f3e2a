"""The shortcut of a forecaster by ridge regression, in closed form."""

import numpy as np

from keras_ssm.forecasting.ridge_weights import RidgeSums

# Penalties in units of the mean eigenvalue of the windows: smooth signals need tiny ones.
PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-16, 5))
MOST = 300_000  # the most windows that are summed
BLOCK = 4096
LARGEST = 5_000_000  # the most numbers in sums of steps that lack targets


def solve_shortcut(segments, train, validation, penalties=PENALTIES):
    """The weights of the shortcut, and the penalty that does best on the validation part.

    Args:
        segments: `Segments`.
        train, validation: `Ranges`; without validation steps the last fifth of the training
            decides, and is learned from when it has. A target that is missing counts in no sum;
            where that would take too many sums, for long windows and horizons, one between its
            neighbours stands for it.
        penalties: floats. In units of the mean eigenvalue.

    Returns:
        Tuple of a float64 array `(lookback, steps)` and the penalty.
    """
    apart = validation.counts.sum() == 0
    learned = train
    if apart:
        cut = train.first + train.counts * 4 // 5
        learned, validation = train._replace(last=cut - 1), train._replace(first=cut)
        if learned.counts.sum() == 0:
            learned = validation = train
    fitted, held_out = RidgeSums(), RidgeSums()
    _add(fitted, segments, learned)
    _add(held_out, segments, validation)
    unit = fitted.scale()
    errors = [(held_out.error(fitted.solve(unit * penalty)), penalty) for penalty in penalties]
    penalty = min(errors)[1]
    if apart and learned is not train:
        _add(fitted, segments, validation)
        unit = fitted.scale()
    return fitted.solve(unit * penalty), penalty


def _add(sums, segments, ranges):
    stride = ranges.strided(MOST)
    between = segments.steps * segments.lookback**2 > LARGEST
    for row, (first, last) in enumerate(zip(ranges.first, ranges.last, strict=True)):
        origins = np.arange(last, first - 1, -stride)
        for start in range(0, len(origins), BLOCK):
            block = origins[start : start + BLOCK]
            lanes = np.full(len(block), row)
            windows = segments.windows(lanes, block)
            end = windows[:, -1:]
            sums.add(windows - end, segments.following(lanes, block, between) - end)
