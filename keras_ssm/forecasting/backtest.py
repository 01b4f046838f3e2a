from typing import Any, NamedTuple

import numpy as np

from keras_ssm.forecasting import metrics
from keras_ssm.forecasting.time_index import pandas


class Backtest(NamedTuple):
    """Forecasts from many rows of a history, and what came.

    Fields:
        origins: list of integers `(windows,)`, one for each series: the row after which a
            forecast follows; negative where the series had not begun.
        forecasts: dict from `"mean"`, `"lo-90"`, ... to a list of arrays
            `(windows, horizon, variables)`, one for each series; NaN where nothing was known.
        actual: list of such arrays: what came.
        scores: dict of `mse`, `mae`, `rmse`, `mase`, and with intervals
            `weighted_quantile_loss` and the coverage of each.
        panel: `keras_ssm.forecasting.Panel` of the history.

    Example:
        ```python
        series = np.sin(np.arange(80.0))[:, None]
        model = keras_ssm.forecasting.Ridge(lookback=8, horizon=2).fit(series)
        found = model.backtest(series, windows=3)
        print(found.scores["mae"], found.forecasts["mean"][0].shape)  # (3, 2, 1)
        ```
    """

    origins: list
    forecasts: dict
    actual: list
    scores: dict
    panel: Any

    @classmethod
    def of(cls, panel, forecasts, origins, scales):
        """A backtest of all series of a panel.

        Args:
            panel: `Panel`.
            forecasts: dict of lists of arrays, as of the class.
            origins: integers `(windows,)`, counted in the longest series, with whose end all
                others end.
            scales: list of sequences `(variables,)`, one for each series: what `mase` divides by,
                see `seasonal_scale`.
        """
        horizon = forecasts["mean"][0].shape[1]
        longest = max(len(series.values) for series in panel.series)
        known_origins, actual = [], []
        for i, series in enumerate(panel.series):
            missing = longest - len(series.values)
            values = np.concatenate(
                [np.full((missing, len(panel.variables)), np.nan), series.values]
            )
            actual_rows = values[origins[:, None] + 1 + np.arange(horizon)]
            actual.append(np.where(np.isnan(forecasts["mean"][i]), np.nan, actual_rows))
            known_origins.append(origins - missing)
        metric_values = scores(forecasts, actual, scales)
        return cls(known_origins, forecasts, actual, metric_values, panel)

    @classmethod
    def joined(cls, parts, panel):
        """Backtests of one window each, of forecasters of their own, as one."""
        length = max(len(series.values) for series in panel.series)
        origins = [[] for _ in panel.series]
        actual = [[] for _ in panel.series]
        forecasts = {name: [[] for _ in panel.series] for name in parts[0].forecasts}
        for part in parts:
            left_out = length - max(len(series.values) for series in part.panel.series)
            position = 0
            for i, series in enumerate(panel.series):
                rows = len(series.values) - left_out
                nothing = np.full_like(part.actual[0], np.nan)
                has_series = rows > 0  # otherwise the part lacks the series
                origins[i].append(
                    part.origins[position]
                    if has_series
                    else rows - 1 - np.full(1, nothing.shape[1])
                )
                actual[i].append(part.actual[position] if has_series else nothing)
                for name, values in part.forecasts.items():
                    forecasts[name][i].append(values[position] if has_series else nothing)
                position += has_series
        origins, actual = list(map(np.concatenate, origins)), list(map(np.concatenate, actual))
        forecasts = {name: list(map(np.concatenate, values)) for name, values in forecasts.items()}
        scaled = [part.scores["mase"] for part in parts if np.isfinite(part.scores["mase"])]
        values = scores(forecasts, actual, scales=[])  # the scales differ from part to part
        values["mase"] = float(np.mean(scaled)) if scaled else float("nan")
        return cls(origins, forecasts, actual, values, panel)

    def frame(self) -> Any:
        """The windows as a long data frame.

        Returns:
            Frame with the columns `unique_id` (of several series), `variable` (of several),
            `cutoff`, `ds`, `y`, `forecast` and those of the intervals. Rows of arrays, which have
            no dates, are numbered.
        """
        pd = pandas()
        parts = []
        for i, series in enumerate(self.panel.series):
            index = series.index if series.index is not None else np.arange(len(series.values))
            horizon, variables = self.actual[i].shape[1:]
            rows = self.origins[i][:, None] + 1 + np.arange(horizon)
            scored = self.origins[i] >= 0
            for variable in range(variables):
                columns = {
                    "cutoff": np.repeat(np.asarray(index[self.origins[i][scored]]), horizon),
                    "ds": np.asarray(index[rows[scored].ravel()]),
                    "y": self.actual[i][scored, :, variable].ravel(),
                    "forecast": self.forecasts["mean"][i][scored, :, variable].ravel(),
                }
                for name, arrays in self.forecasts.items():
                    if name != "mean":
                        columns[name] = arrays[i][scored, :, variable].ravel()
                head = {}
                if len(self.panel.series) > 1:
                    head["unique_id"] = i if series.name is None else series.name
                if variables > 1:
                    head["variable"] = self.panel.variables[variable]
                parts.append(pd.DataFrame({**head, **columns}))
        return pd.concat(parts, ignore_index=True)


def scores(forecasts, actual, scales):
    """The scores of forecasts, as of `Backtest`."""
    mean = forecasts["mean"]
    filled = [np.nan_to_num(part) for part in mean]  # the true values are NaN there too
    values = {
        "mse": metrics.mse(actual, filled),
        "mae": metrics.mae(actual, filled),
        "rmse": metrics.rmse(actual, filled),
        "mase": scaled_error(actual, filled, scales),
    }
    levels = [float(name[3:]) for name in forecasts if name.startswith("lo-")]
    bounds = {}
    for level in levels:
        ends = [
            [np.nan_to_num(part) for part in forecasts[f"{end}-{level:g}"]] for end in ("lo", "hi")
        ]
        bounds[level] = ends
        values[f"coverage_{level:g}"] = metrics.coverage(actual, *ends)
    if levels:
        by_quantile = {0.5: filled}
        for level, (low, high) in bounds.items():
            by_quantile[0.5 - level / 200] = low
            by_quantile[0.5 + level / 200] = high
        values["weighted_quantile_loss"] = metrics.weighted_quantile_loss(actual, by_quantile)
    return values


def seasonal_scale(values, season):
    """Mean of |x_t - x_(t - season)| of each column as a list, 0 where no pair is known."""
    change = np.abs(values[season:] - values[:-season])
    known = ~np.isnan(change)
    count = np.maximum(known.sum(axis=0), 1)
    return (np.where(known, change, 0.0).sum(axis=0) / count).tolist()


def scaled_error(actual, forecast, scales):
    """Mean absolute scaled error, by the scales of the training part; NaN where none is known."""
    ratios = []
    for i, scale in enumerate(scales):
        error = np.abs(actual[i] - forecast[i])
        for variable in range(error.shape[-1]):
            errors = error[..., variable][~np.isnan(error[..., variable])]
            if errors.size and scale[variable] > 0:
                ratios.append(errors.mean() / scale[variable])
    return float(np.mean(ratios)) if ratios else float("nan")
