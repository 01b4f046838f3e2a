"""Which steps of each row are trained on, and which are for validation."""

from typing import NamedTuple

import numpy as np


class Ranges(NamedTuple):
    """Steps after which a forecast may follow, from the first to the last, both included.

    Fields:
        first, last: integers `(rows,)`; a row whose last is before its first has none.
    """

    first: np.ndarray
    last: np.ndarray

    @property
    def counts(self):
        """Number of steps of each row."""
        return np.maximum(self.last - self.first + 1, 0)

    def strided(self, most):
        """The least stride that leaves so many steps at most, of all rows together."""
        return max(1, -(-int(self.counts.sum()) // most))


def ranges(rows, held_out, lookback, steps):
    """The steps to train and to validate on.

    Args:
        rows: `PanelRows`.
        held_out: integers `(rows,)`. Rows of its end that are for validation.
        lookback: int.
        steps: int. Steps of a forecast.

    Returns:
        Tuple of two `Ranges`. A row starts, if it is long enough, with a full window.
    """
    total = rows.values.shape[1]
    observed = ~np.isnan(rows.values)
    some = observed.any(axis=1)
    first_value = np.where(some, observed.argmax(axis=1), total)
    last = total - held_out - steps - 1
    start = total - rows.lengths
    full = start + np.minimum(lookback - 1, np.maximum(last - start, 0) // 2)
    train = Ranges(np.maximum(full, first_value), last)
    first = np.where(held_out > 0, np.maximum(total - held_out - 1, first_value), total)
    return train, Ranges(first, np.full(len(first), total - steps - 1))
