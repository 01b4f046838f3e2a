from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.forecasting.backtest import Backtest
from keras_ssm.forecasting.baselines.series_facts import SeriesFacts
from keras_ssm.forecasting.conformal import half_widths, with_intervals
from keras_ssm.forecasting.filling import filled_forward
from keras_ssm.forecasting.panel import Panel
from keras_ssm.forecasting.split import validation_rows
from keras_ssm.forecasting.windows import windows


class Baseline:
    """Base of the baselines, with the methods of the forecaster.

    A subclass says in `reads` how many rows a forecast needs, learns in `learn`, and forecasts in
    `forecast`. Variables are forecast one by one. Covariates may be there and are not read.

    Args:
        horizon: int. Rows of a forecast. Defaults to `24`.

    Example:
        ```python
        class Mean(Baseline):
            reads = 10

            def forecast(self, values, origins, fitted):
                means = np.stack([values[t - 10 : t].mean(axis=0) for t in origins])
                return np.repeat(means[:, None], self.horizon, axis=1)


        y = Mean(horizon=3).fit(np.arange(40.0)).predict()  # 34.5, 34.5, 34.5
        ```
    """

    reads = 1
    learns = False  # whether `fit` needs windows to learn from

    def __init__(self, horizon: int = 24):
        (self.horizon,) = check_positive(horizon=horizon)
        self.panel = None

    # Methods that a subclass defines

    def prepare(self, panel: Panel) -> None:
        """Takes over settings from the frequency of the data, before `learn`.

        Args:
            panel: `Panel`.
        """

    def learn(self, verbose: int | str) -> None:
        """Fits the weights, if there are any, from `pairs("train")` and `pairs("validation")`.

        Args:
            verbose: int or str. As of `keras.Model.fit`.
        """

    def fill(self, values: np.ndarray) -> np.ndarray:
        """Replaces missing values; here by the last value seen.

        Args:
            values: array `(time, V)`, NaN where missing.

        Returns:
            Array `(time, V)`, finite.
        """
        return filled_forward(values)

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: SeriesFacts) -> np.ndarray:
        """Forecasts of a series after some of its rows.

        Args:
            values: array `(time, V)`, finite.
            origins: integers `(n,)`, at least `reads`. The rows before each have been read.
            fitted: `SeriesFacts`. What is known of the series.

        Returns:
            Array `(n, horizon, V)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a `forecast`")

    # Fitting and forecasting

    def fit(
        self,
        data: Any,
        validation: int | float | None = None,
        verbose: int | str = 0,
        *,
        season: int | None = None,
        **columns: Any,
    ) -> "Baseline":
        """Learns from data.

        Args:
            data: array, list of arrays or frame, as `Panel.read` takes it, or a `Panel`.
            validation: int, float or `None`. Rows at the end of each series, or their share, which
                choose settings and tell the width of intervals; nothing else is learned from them,
                but windows may begin before them. Defaults to `None`: a fifth of the rows, and a
                horizon at least. 0 holds out none.
            verbose: int or str. As of `keras.Model.fit`. Defaults to `0`.
            season: int or `None`. Rows of a season, for the scale of `mase`. Defaults to `None`:
                that of the baseline, else of the index, or 1.
            **columns: Further arguments of `Panel.read`, such as `target` and `freq`.

        Returns:
            The baseline itself.

        Raises:
            ValueError: for data that `Panel.read` refuses, or that are too short.
        """
        panel = Panel.read(data, **columns)
        self.prepare(panel)
        season = season or getattr(self, "season", None) or panel.season() or 1
        (season,) = check_positive(season=season)
        reads = self.reads if self.learns else 1
        held_out = [0] * len(panel.series)
        if self.learns or max(len(s.values) for s in panel.series) >= reads + self.horizon:
            held_out = validation_rows(panel, validation, self.horizon, reads)
        self.panel, self.fitted, self.rows_of_season = panel, {}, season
        for number, (series, rows) in enumerate(zip(panel.series, held_out, strict=True)):
            training_rows = len(series.values) - rows
            self.fitted[_key(number, series)] = SeriesFacts.of(series.values, training_rows, season)
        self.learn(verbose)
        return self

    def predict(
        self,
        history: Any = None,
        future: Any = None,
        *,
        static: Any = None,
        levels: Sequence[float] | float | None = None,
    ) -> Any:
        """Forecasts the rows after the last one.

        Args:
            history: data of the kind that `fit` took, or `None` for those of `fit`.
                Defaults to `None`.
            future, static: covariates, which are not read. Default to `None`.
            levels: percentages of intervals, such as `90`, from the errors on the validation part:
                columns `lo-90` and `hi-90`. Defaults to `None`.

        Returns:
            `horizon` rows of the kind that came in: see `Panel.frame`.

        Raises:
            ValueError: before `fit`, for data unlike those of `fit`, too short a history, or too
                few errors for a level.
        """
        panel = self._read(history, static)
        widths = self._all_widths(levels)
        forecasts, half_widths = [], {level: [] for level in widths}
        for number, series in enumerate(panel.series):
            fitted = self._fitted(number, series)
            rows = len(series.values)
            if rows < self.reads:
                whose = "" if series.name is None else f" of the series {series.name!r}"
                raise ValueError(
                    f"`history`{whose} must have at least the {self.reads} rows that a forecast "
                    f"reads. Received: {rows} rows"
                )
            forecasts.append(self.forecast(self.fill(series.values), np.array([rows]), fitted)[0])
            for level, width in widths.items():
                half_widths[level].append(width * fitted.scale)
        return panel.frame(with_intervals(forecasts, half_widths), self.horizon)

    def backtest(
        self,
        data: Any,
        windows: int = 10,
        step: int | None = None,
        *,
        static: Any = None,
        levels: Sequence[float] | float | None = None,
    ) -> Backtest:
        """Forecasts the end of data again and again, each time from what was known then.

        Args:
            data: as `predict` takes them.
            windows: int. Forecasts of each series; the last one ends with the series.
                Defaults to `10`.
            step: int or `None`. Rows from one to the next. Defaults to `horizon`: without overlap.
            static, levels: as in `predict`.

        Returns:
            `Backtest`: forecasts and what came, by windows, their scores, and all as a frame.

        Raises:
            ValueError: as `predict`, or for data without a window.
        """
        step = self.horizon if step is None else step
        windows, step = check_positive(windows=windows, step=step)
        panel = self._read(data, static)
        last = max(len(series.values) for series in panel.series) - 1 - self.horizon
        return self._rolled(panel, np.arange(last - (windows - 1) * step, last + 1, step), levels)

    def evaluate(
        self,
        data: Any,
        rows: int | None = None,
        step: int = 1,
        *,
        static: Any = None,
        levels: Sequence[float] | float | None = None,
    ) -> dict[str, float]:
        """Scores of forecasts from every row of the end of data, none of them left out.

        Args:
            data: as `predict` takes them.
            rows: int or `None`. Rows at the end that are forecast: with a step of 1 in
                `rows - horizon + 1` windows; those before are read alone. Defaults to `None`: all
                rows that have enough before them.
            step: int. Rows from one forecast to the next. Defaults to `1`.
            static, levels: as in `predict`.

        Returns:
            Dict of `mse`, `mae`, `rmse`, `mase`, and with intervals `weighted_quantile_loss` and
            the coverage of each, in the units of the data. The scale of `mase` is that of the
            training part, or of the data of a series that `fit` has not seen.

        Raises:
            ValueError: as `predict`, for fewer rows than the horizon, or data without a window.
        """
        panel = self._read(data, static)
        longest = max(len(series.values) for series in panel.series)
        rows = max(longest - self.reads, self.horizon) if rows is None else rows
        rows, step = check_positive(rows=rows, step=step)
        if rows < self.horizon:
            raise ValueError(
                f"`rows` must be at least the horizon, {self.horizon}. Received: rows={rows}"
            )
        last = longest - 1 - self.horizon
        origins = np.arange(last, longest - rows - 2, -step)[::-1]
        return self._rolled(panel, origins, levels).scores

    # Helpers

    def pairs(self, part: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Windows of one variable after the other, in units of its training part.

        Args:
            part: str. `"train"` or `"validation"`.

        Yields:
            Tuples of arrays `(n, reads)`, finite, and `(n, horizon)`, NaN where unknown: both in
            units of the variable's deviation, its mean taken off.

        Raises:
            ValueError: if no series is long enough.
        """
        any_pairs = False
        for number, series in enumerate(self.panel.series):
            fitted = self._fitted(number, series)
            first = 0 if part == "train" else max(0, fitted.rows - self.reads)
            stop = fitted.rows if part == "train" else len(series.values)
            nothing = part == "validation" and fitted.rows == stop
            if nothing or stop - first < self.reads + self.horizon:
                continue
            raw = (series.values - fitted.mean) / fitted.scale
            filled = self.fill(raw[:stop])
            for variable in range(raw.shape[1]):
                x, _ = windows(filled[first:, variable], self.reads, self.horizon)
                _, y = windows(raw[first:stop, variable], self.reads, self.horizon)
                any_pairs = True
                yield x, y
        if not any_pairs:
            raise ValueError(
                f"`{'data' if part == 'train' else 'validation'}` must leave a {part} part with a "
                f"window of {self.reads} rows that a forecast reads, and a horizon of "
                f"{self.horizon}. Received: series of up to "
                f"{max(len(series.values) for series in self.panel.series)} rows"
            )

    def _read(self, data, static):
        if self.panel is None:
            raise ValueError(
                "`fit` must come before a forecast. Received: a baseline that has seen no data"
            )
        if data is None:
            return self.panel
        return Panel.read(data, static=static, like=self.panel.roles)

    def _fitted(self, number, series):
        """The facts of a series from `fit`, or from the series itself where it is new."""
        facts = self.fitted.get(_key(number, series))
        return facts or SeriesFacts.of(series.values, len(series.values), self.rows_of_season)

    def _rolled(self, panel, origins, levels):
        """The `Backtest` after rows that are counted in the longest series."""
        longest = max(len(series.values) for series in panel.series)
        widths = self._all_widths(levels)
        forecasts, half_widths, scales = [], {level: [] for level in widths}, []
        for number, series in enumerate(panel.series):
            fitted = self._fitted(number, series)
            ends = origins + 1 - (longest - len(series.values))
            shape = len(ends), self.horizon, len(panel.variables)
            forecast, readable = np.full(shape, np.nan), ends >= self.reads
            if readable.any():
                forecast[readable] = self.forecast(self.fill(series.values), ends[readable], fitted)
            forecasts.append(forecast)
            scales.append(fitted.seasonal_scale)
            for level, width in widths.items():
                half_widths[level].append(width * fitted.scale)
        if not any(np.isfinite(forecast).any() for forecast in forecasts):
            raise ValueError(
                f"`data` must have {self.reads} rows, which a forecast reads, before a horizon of "
                f"{self.horizon}. Received: at most {longest} rows"
            )
        return Backtest.of(panel, with_intervals(forecasts, half_widths), origins, scales)

    def _all_widths(self, levels):
        """Dict of levels to half widths `(horizon, V)` in units of the deviations."""
        levels = () if levels is None else np.atleast_1d(levels).tolist()
        if not levels:
            return {}
        residuals = [np.zeros((0, self.horizon, len(self.panel.variables)))]
        for number, series in enumerate(self.panel.series):
            fitted = self._fitted(number, series)
            first = max(fitted.rows, self.reads)
            origins = np.arange(first, len(series.values) - self.horizon + 1)
            if len(origins) and fitted.rows < len(series.values):
                forecast = self.forecast(self.fill(series.values), origins, fitted)
                errors = _targets(series.values, origins, self.horizon) - forecast
                residuals.append(errors / fitted.scale)
        residuals = np.concatenate(residuals)
        return {level: half_widths(residuals, level) for level in levels}


def _key(number, series):
    return number if series.name is None else series.name


def _targets(values, origins, horizon):
    """A view of the rows that follow consecutive origins, `(n, horizon, V)`."""
    return windows(values[origins[0] - 1 : origins[-1] + horizon], 1, horizon)[1]
