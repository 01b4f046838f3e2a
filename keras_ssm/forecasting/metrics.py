"""Measures of forecasts. Values that are missing in `y` count in none of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.forecasting.alignment import aligned, history_like


def mse(y: Any, forecast: Any) -> float:
    """Mean square error: the mean of (y - forecast)^2.

    Args:
        y: array `(..., horizon, V)` or `(horizon,)`, list of such, or frame. What came; NaN where
            unknown. A frame may have more rows than the forecast.
        forecast: of the same kind, NaN nowhere.

    Returns:
        float: the mean over all values that are known.

    Raises:
        ValueError: if shapes, dates or columns do not fit, no value is known, or a forecast is
            missing.

    Example:
        ```python
        assert mse(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, 3.0])) == 0.5
        ```
    """
    return float(np.mean(_errors(y, forecast) ** 2))


def mae(y: Any, forecast: Any) -> float:
    """Mean absolute error: the mean of |y - forecast|.

    Args:
        y: as `mse` takes it.
        forecast: as `mse` takes it.

    Returns:
        float: the mean over all values that are known.

    Raises:
        ValueError: as `mse`.

    Example:
        ```python
        assert mae(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, 3.0])) == 0.5
        ```
    """
    return float(np.mean(np.abs(_errors(y, forecast))))


def rmse(y: Any, forecast: Any) -> float:
    """Root of the mean square error, in the units of y.

    Args:
        y: as `mse` takes it.
        forecast: as `mse` takes it.

    Returns:
        float: the root of the mean over all values that are known.

    Raises:
        ValueError: as `mse`.

    Example:
        ```python
        assert rmse(np.array([0.0, 0.0]), np.array([3.0, 3.0])) == 3.0
        ```
    """
    return float(np.sqrt(mse(y, forecast)))


def mase(y: Any, forecast: Any, history: Any, season: int = 1) -> float:
    """Mean absolute scaled error: below 1 is better than the seasonal naive forecast of one step.

    The mean of |y - forecast| over that of |x_t - x_(t - season)| in the history, for each variable
    of each series, and then the mean of these ratios.

    Args:
        y: as `mse` takes it.
        forecast: as `mse` takes it.
        history: array `(time, V)`, list of such, or frame: the training part, from which the scale
            comes. Pairs with a NaN are left out.
        season: int. Rows of a season. Defaults to `1`.

    Returns:
        float.

    Raises:
        ValueError: as `mse`; for a history that does not change, or of other series.

    Example:
        ```python
        history = np.array([1.0, 2.0, 3.0, 4.0])
        assert mase(np.array([5.0, 6.0]), np.array([4.0, 4.0]), history) == 1.5
        ```

    Reference:
        R. J. Hyndman and A. B. Koehler (2006), Another look at measures of forecast accuracy,
        International Journal of Forecasting 22, equation 8.
    """
    (season,) = check_positive(season=season)
    pairs = aligned(y, forecast)
    pasts = history_like(history, forecast)
    if len(pasts) != len(pairs):
        raise ValueError(
            "`history` must have the series of `y`. "
            f"Received: {len(pasts)} series, and {len(pairs)} of `y`"
        )
    ratios = []
    for (actual, predicted), past in zip(pairs, pasts, strict=True):
        if past.ndim != 2 or past.shape[1] != actual.shape[-1] or len(past) <= season:
            raise ValueError(
                "`history` must be `(time, V)` with more rows than `season` and the variables of "
                f"`y`. Received: shape={past.shape}, season={season}, V={actual.shape[-1]}"
            )
        steps = np.abs(past[season:] - past[:-season])
        for variable in range(past.shape[1]):
            changes = steps[:, variable][~np.isnan(steps[:, variable])]
            if not changes.size or not changes.any():
                raise ValueError(
                    "`history` must change from season to season in every variable: there is no "
                    f"scale otherwise. Received: variable {variable}, {changes.size} known pairs"
                )
            part = actual[..., variable], predicted[..., variable]
            if not np.isnan(part[0]).all():
                ratios.append(np.mean(np.abs(_known(*part))) / np.mean(changes))
    if not ratios:
        raise ValueError("`y` must have known values. Received: NaN alone")
    return float(np.mean(ratios))


def weighted_quantile_loss(y: Any, forecasts: Mapping[float, Any]) -> float:
    """Weighted quantile loss: twice the pinball loss over the sum of |y|, mean of the quantiles.

    With the quantiles 0.1, 0.2, ..., 0.9 this is what gluonts and autogluon report. The pinball
    loss of a quantile q is q (y - f) where y is above the forecast f, and (1 - q) (f - y) below.

    Args:
        y: as `mse` takes it.
        forecasts: dict of quantiles between 0 and 1 to forecasts as `mse` takes them.

    Returns:
        float.

    Raises:
        ValueError: as `mse`; for no quantile, or one that is not between 0 and 1; if all known
            values are 0.

    Example:
        ```python
        y = np.array([2.0, 2.0])
        assert weighted_quantile_loss(y, {0.5: np.array([1.0, 3.0])}) == 0.5
        ```

    Reference:
        [GluonTS](https://arxiv.org/abs/1906.05264), mean weighted quantile loss.
    """
    if not isinstance(forecasts, Mapping) or not forecasts:
        raise ValueError(
            "`forecasts` must be a dict of quantiles to forecasts. "
            f"Received: {type(forecasts).__name__}"
        )
    for quantile in forecasts:
        if not isinstance(quantile, (float, np.floating)) or not 0 < quantile < 1:
            raise ValueError(
                f"`forecasts` must have quantiles between 0 and 1. Received: {quantile!r}"
            )
    losses, total = [], 0.0
    for quantile, forecast in forecasts.items():
        pairs = aligned(y, forecast)
        errors = np.concatenate([_known(*pair) for pair in pairs])
        losses.append(2.0 * np.sum(np.maximum(quantile * errors, (quantile - 1.0) * errors)))
        total = sum(np.nansum(np.abs(actual)) for actual, _ in pairs)
    if not total > 0:
        raise ValueError(f"`y` must have values other than 0. Received: sum of |y|={total}")
    return float(np.mean(losses) / total)


def coverage(y: Any, low: Any, high: Any) -> float:
    """Share of the values that lie within an interval, its ends among it.

    Args:
        y: as `mse` takes it.
        low: of the same kind. Lower ends.
        high: of the same kind. Upper ends.

    Returns:
        float from 0 to 1, over all values that are known.

    Raises:
        ValueError: as `mse`.

    Example:
        ```python
        assert coverage(np.array([1.0, 5.0]), np.zeros(2), np.full(2, 3.0)) == 0.5
        ```
    """
    pairs = aligned(y, low, high)
    below = np.concatenate([_known(actual, lower) for actual, lower, _ in pairs])
    above = np.concatenate([_known(actual, upper) for actual, _, upper in pairs])
    _check_some(below)
    return float(np.mean((below >= 0) & (above <= 0)))


def _errors(y, forecast):
    errors = np.concatenate([_known(*pair) for pair in aligned(y, forecast)])
    return _check_some(errors)


def _check_some(errors):
    if not errors.size:
        raise ValueError("`y` must have known values. Received: NaN alone")
    return errors


def _known(actual, predicted):
    """Errors where the truth is known."""
    known = ~np.isnan(actual)
    errors = actual[known] - predicted[known]
    if np.isnan(errors).any():
        raise ValueError(
            "`forecast` must have a number wherever `y` has one. "
            f"Received: {int(np.isnan(errors).sum())} NaN"
        )
    return errors
