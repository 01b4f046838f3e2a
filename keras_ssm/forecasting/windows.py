"""Pairs of a history and what followed it, as views of one array."""

import numpy as np

from keras_ssm.checks import check_positive


def windows(
    values: np.ndarray, lookback: int, horizon: int, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a series into histories and the rows that follow them.

    Both results are views: nothing is copied. The last window, whose targets end with the series,
    is always one of them, whatever `step` is, and none is left out at the end.

    Args:
        values: array `(time, variables)` or `(time,)`.
        lookback: int. Rows of a history.
        horizon: int. Rows that follow it.
        step: int. Rows from the start of one window to that of the next. Defaults to `1`.

    Returns:
        Tuple of arrays `(windows, lookback, ...)` and `(windows, horizon, ...)`, read only.

    Raises:
        ValueError: if a size is not positive or the series is shorter than one window.

    Example:
        ```python
        histories, targets = windows(np.arange(10.0), lookback=4, horizon=2)
        assert histories.shape == (5, 4) and targets[-1].tolist() == [8.0, 9.0]
        ```
    """
    lookback, horizon, step = check_positive(lookback=lookback, horizon=horizon, step=step)
    values = np.asarray(values)
    rows = len(values) if values.ndim else 0
    count = rows - lookback - horizon + 1
    if count < 1:
        raise ValueError(
            "`values` must have at least `lookback` + `horizon` rows, which one window takes. "
            f"Received: rows={rows}, lookback={lookback}, horizon={horizon}"
        )
    views = np.lib.stride_tricks.sliding_window_view(values, lookback + horizon, axis=0)
    views = np.moveaxis(views, -1, 1)[(count - 1) % step :: step]
    return views[:, :lookback], views[:, lookback:]
