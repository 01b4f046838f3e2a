"""Intervals from the errors that a forecaster made on data that it was not fitted to."""

from collections.abc import Sequence

import numpy as np

from keras_ssm.checks import check_number


def half_widths(residuals: np.ndarray, level: float) -> np.ndarray:
    """Half the width of an interval that holds a new value with at least a probability.

    For each step of the horizon and each variable, of n errors that are known, it is the k-th
    smallest absolute one, k = ceil((n + 1) level / 100). A new value, if its error is exchangeable
    with these, is within with a probability from `level` to `level + 100 / (n + 1)` percent. Errors
    of windows that overlap are not quite: read the coverage on later data before you rely on it.

    Args:
        residuals: array `(n, horizon, V)`. What came less its forecast; NaN where unknown.
        level: float. Percent, between 0 and 100: `90` for nine of ten values.

    Returns:
        float64 array `(horizon, V)`.

    Raises:
        ValueError: for another level or shape, or too few errors: 90 % takes 9 of them.

    Example:
        ```python
        errors = np.random.default_rng(0).normal(size=(1000, 2, 1))
        assert np.abs(half_widths(errors, 90) - 1.645).max() < 0.1
        ```

    Reference:
        [Conformal prediction](https://arxiv.org/abs/2107.07511), section 1.
    """
    check_level(level)
    residuals = np.asarray(residuals, "float64")
    if residuals.ndim != 3:
        raise ValueError(
            "`residuals` must be an array `(n, horizon, V)`. "
            f"Received: residuals.shape={residuals.shape}"
        )
    sizes = np.sort(np.abs(residuals), axis=0)  # NaN are sorted last
    count = np.sum(~np.isnan(sizes), axis=0)
    rank = np.ceil((count + 1) * (level / 100.0) - 1e-9).astype(int)
    if not count.size or (rank > count).any():
        raise ValueError(
            f"`residuals` must have at least {least_errors(level)} known errors at every step for "
            f"intervals of {level:g} %: a longer validation part has more. "
            f"Received: {int(count.min()) if count.size else 0}"
        )
    return np.take_along_axis(sizes, rank[None] - 1, axis=0)[0]


def least_errors(level: float) -> int:
    """The smallest number of errors from which an interval of a level follows.

    Args:
        level: float. Percent, between 0 and 100.

    Returns:
        int.

    Example:
        ```python
        assert least_errors(90) == 9 and least_errors(99) == 99
        ```
    """
    check_level(level)
    return max(1, int(np.ceil(level / (100.0 - level) - 1e-9)))


def check_level(level: float) -> None:
    """Raises a `ValueError` unless a level is a percentage between 0 and 100.

    Args:
        level: float.

    Raises:
        ValueError: for 0 and below, and 100 and above.
    """
    check_number("level", level)
    if not 0 < level < 100:
        raise ValueError(f"`level` must be between 0 and 100 percent. Received: level={level!r}")


def with_intervals(
    forecasts: list[np.ndarray], widths: dict[float, Sequence[np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """The names of a forecast and its intervals, as `Panel.frame` takes them.

    Args:
        forecasts: list of arrays `(horizon, V)`, one for each series.
        widths: dict of levels to half widths, a list of arrays `(horizon, V)` as well.

    Returns:
        Dict of `"mean"`, `"lo-90"`, `"hi-90"` and so on to lists of arrays.

    Example:
        ```python
        forecasts = with_intervals([np.zeros((2, 1))], {90: [np.ones((2, 1))]})
        assert list(forecasts) == ["mean", "lo-90", "hi-90"]
        ```
    """
    named = {"mean": list(forecasts)}
    for level in sorted(widths):
        pairs = [*zip(forecasts, widths[level], strict=True)]
        named[f"lo-{level:g}"] = [forecast - width for forecast, width in pairs]
        named[f"hi-{level:g}"] = [forecast + width for forecast, width in pairs]
    return named
