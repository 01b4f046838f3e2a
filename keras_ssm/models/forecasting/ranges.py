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


def validation_rows(panel, validation, horizon):
    """Rows at the end of each series that are for validation.

    A series that is too short for both parts is trained on whole.

    Args:
        panel: `Panel`.
        validation: int of rows, float share of the rows of each series, 0 for none, or `None` for
            a fifth where enough is left.
        horizon: int.

    Returns:
        List of int, one for each series.

    Raises:
        ValueError: for a share outside (0, 1), fewer rows than the horizon, or series that are too
            short altogether.
    """
    lengths = [len(series.values) for series in panel.series]
    least = horizon + 2  # rows to learn from: two forecasts of one row, or one of two
    if max(lengths) < least:
        raise ValueError(
            f"`data` must have a series of at least {least} rows, two more than the horizon. "
            f"Received: at most {max(lengths)} rows"
        )
    if validation is None:
        wanted = [max(horizon, n // 5) for n in lengths]
        return [v if n - v >= least else 0 for n, v in zip(lengths, wanted, strict=True)]
    count = isinstance(validation, (int, np.integer)) and not isinstance(validation, bool)
    share = isinstance(validation, (float, np.floating)) and 0 < validation < 1
    if not (share or (count and (validation == 0 or validation >= horizon))):
        raise ValueError(
            f"`validation` must be a number of rows, at least the horizon of {horizon}, a share "
            "between 0 and 1, 0 for none, or None for a fifth. "
            f"Received: validation={validation!r}"
        )
    if count and validation == 0:
        return [0] * len(lengths)
    wanted = [max(horizon, round(n * validation)) if share else int(validation) for n in lengths]
    kept = [v if n - v >= least else 0 for n, v in zip(lengths, wanted, strict=True)]
    if not any(kept):
        raise ValueError(
            f"`validation` must leave {least} rows of some series to learn from, two more than "
            f"the horizon. Received: validation={validation}, at most {max(lengths)} rows"
        )
    return kept


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
