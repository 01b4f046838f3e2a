"""Forecasts in the units of the data, with their intervals."""

import numpy as np

from keras_ssm.forecasting.conformal import half_widths, least_errors, with_intervals
from keras_ssm.models.forecasting.rolling import forecasts_after


def residual_widths(model, rows, valid, levels, most, variables, reading):
    """Half widths of intervals from the errors on the validation part, for each step and variable.

    Args:
        model: `SSMForecaster`.
        rows: `PanelRows`.
        valid: `Ranges`. Steps to forecast after.
        levels: floats, in percent. Those for which there are too few errors are left out.
        most: int. How many forecasts are made at most.
        variables: int.
        reading: `Reading`, which has read all rows then.

    Returns:
        List of pairs of a level and a list `(horizon, variables)`, in units of the training part.
    """
    horizon = model.horizon
    last = rows.values.shape[1] - horizon - 1
    first = int(valid.first.min())
    origins = np.arange(last, first - 1, -valid.strided(most))[::-1]
    y = forecasts_after(model, rows, origins, reading)[..., 0]
    errors = rows.values[:, origins[:, None] + 1 + np.arange(horizon)] - y
    errors[origins < valid.first[:, None]] = np.nan
    errors = errors.reshape(-1, variables, len(origins), horizon)
    errors = np.moveaxis(errors, 1, -1).reshape(-1, horizon, variables)
    fewest = (~np.isnan(errors)).sum(axis=0).min()
    return [
        [level, half_widths(errors, level).tolist()]
        for level in levels
        if least_errors(level) <= fewest
    ]


def named_forecasts(model, panel, rows, y, levels):
    """Forecasts by the names of `Panel.frame`, in the units of the data.

    Args:
        model: `SSMForecaster`.
        panel: `Panel`.
        rows: `PanelRows` of it.
        y: array `(rows, places, horizon, outputs)`.
        levels: int, tuple of int or `None`; see `SSMForecaster.predict`.

    Returns:
        Dict from `"mean"`, `"lo-90"`, ... to a list of arrays `(places, horizon, variables)`.

    Raises:
        ValueError: for levels that the forecaster has not.
    """
    count = len(panel.variables)
    y = rows.center[:, None, None, None] + rows.scale[:, None, None, None] * y

    def by_series(values):
        split = values.reshape(-1, count, *values.shape[1:])
        return [np.moveaxis(part, 0, -1) for part in split]

    middle = y.shape[-1] // 2
    mean = by_series(y[..., middle])
    levels = (levels,) if np.ndim(levels) == 0 and levels is not None else levels
    if model.quantiles is not None:
        index_of_level = {
            round(100 - 200 * q, 6): i for i, q in enumerate(model.quantiles[:middle])
        }
        levels = sorted(index_of_level) if levels is None else levels
        check_levels(levels, index_of_level, "those of the quantiles")
        named = {"mean": mean}
        for level in sorted(levels):
            named[f"lo-{level:g}"] = by_series(y[..., index_of_level[level]])
            named[f"hi-{level:g}"] = by_series(y[..., -1 - index_of_level[level]])
        return named
    half_widths = dict(model.fitted["half_widths"])
    levels = levels or ()
    check_levels(
        levels, half_widths, "some for which `fit` had errors enough on its validation part"
    )
    scales = rows.scale.reshape(-1, 1, count)
    widths = {
        level: [
            np.broadcast_to(np.array(half_widths[level]) * scale, part.shape)
            for scale, part in zip(scales, mean, strict=True)
        ]
        for level in levels
    }
    return with_intervals(mean, widths)


def check_levels(levels, choices, source):
    """Raises a `ValueError` for levels that are not known."""
    if not set(levels) <= set(choices):
        raise ValueError(
            f"`levels` must be {source}: {sorted(choices)}. Received: levels={tuple(levels)}"
        )
