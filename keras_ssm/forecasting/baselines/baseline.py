from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.forecasting.conformal import half_widths, with_intervals
from keras_ssm.forecasting.filling import filled_forward
from keras_ssm.forecasting.metrics import mae, mase, mse, rmse
from keras_ssm.forecasting.panel import Panel
from keras_ssm.forecasting.split import held_rows
from keras_ssm.forecasting.windows import windows


class Fitted(NamedTuple):
    """What is known of a series from its training part.

    Args:
        rows: int. Rows of that part.
        mean, scale: arrays `(V,)`. Mean and standard deviation, 1 where nothing changes.
    """

    rows: int
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values, rows):
        """That of the first rows of values `(time, V)`."""
        part = values[:rows]
        count = np.maximum(np.sum(~np.isnan(part), axis=0), 1)
        mean = np.nansum(part, axis=0) / count
        scale = np.sqrt(np.nansum((part - mean) ** 2, axis=0) / count)
        return cls(rows, mean, np.where(scale > 0, scale, 1.0))


class Baseline:
    """Base of the baselines, with the verbs of the forecaster.

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

    def __init__(self, horizon: int = 24):
        (self.horizon,) = check_positive(horizon=horizon)
        self.panel = None

    # What a subclass is

    def prepare(self, panel: Panel) -> None:
        """Settles what depends on the data's frequency, before `learn`.

        Args:
            panel: `Panel`.
        """

    def learn(self, verbose: int | str) -> None:
        """Fits what there is to fit, from `pairs("train")` and `pairs("validation")`.

        Args:
            verbose: int or str. As of `keras.Model.fit`.
        """

    def fill(self, values: np.ndarray) -> np.ndarray:
        """Numbers in the place of missing values; here those seen last.

        Args:
            values: array `(time, V)`, NaN where missing.

        Returns:
            Array `(time, V)`, finite.
        """
        return filled_forward(values)

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: Fitted) -> np.ndarray:
        """Forecasts of a series after some of its rows.

        Args:
            values: array `(time, V)`, finite.
            origins: integers `(n,)`, at least `reads`. The rows before each have been read.
            fitted: `Fitted`. What is known of the series.

        Returns:
            Array `(n, horizon, V)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a `forecast`")

    # The verbs

    def fit(
        self,
        data: Any,
        validation: int | float | None = None,
        verbose: int | str = 0,
        **columns: Any,
    ) -> "Baseline":
        """Learns from data.

        Args:
            data: array, list of arrays or frame, as `Panel.read` takes it, or a `Panel`.
            validation: int, float or `None`. Rows at the end of each series, or their share, which
                choose settings and tell the width of intervals; nothing else is learned from them,
                but windows may begin before them. Defaults to `None`: a fifth of the rows, and a
                horizon at least.
            verbose: int or str. As of `keras.Model.fit`. Defaults to `0`.
            **columns: Further arguments of `Panel.read`, such as `target` and `freq`.

        Returns:
            The baseline itself.

        Raises:
            ValueError: for data that `Panel.read` refuses, or that are too short.
        """
        panel = Panel.read(data, **columns)
        self.prepare(panel)
        self.panel, self.fitted = panel, {}
        for number, series in enumerate(panel.series):
            rows = len(series.values)
            held = held_rows(rows, validation, self.horizon, self.reads)
            self.fitted[_key(number, series)] = Fitted.of(series.values, rows - held)
        self.learn(verbose)
        return self

    def predict(self, history: Any = None, future: Any = None, levels: Sequence[float] = ()) -> Any:
        """Forecasts the rows after the last one.

        Args:
            history: data of the kind that `fit` took, or `None` for those of `fit`.
                Defaults to `None`.
            future: covariates that are known in advance; not read. Defaults to `None`.
            levels: percentages of intervals, such as `(90,)`, from the errors on the validation
                part: columns `lo-90` and `hi-90`. Defaults to `()`.

        Returns:
            `horizon` rows of the kind that came in: see `Panel.frame`.

        Raises:
            ValueError: before `fit`, for data unlike those of `fit`, too short a history, or too
                few errors for a level.
        """
        panel = self._read(history)
        widths = {level: self._widths(level) for level in levels}
        forecasts, half = [], {level: [] for level in levels}
        for number, series in enumerate(panel.series):
            fitted = self._fitted(number, series)
            origins = np.array([len(series.values)])
            forecasts.append(self._forecast(series, origins, fitted)[0])
            for level, width in widths.items():
                half[level].append(width * fitted.scale)
        return panel.frame(with_intervals(forecasts, half), self.horizon)

    def evaluate(
        self, data: Any, rows: int | float | None = None, season: int | None = None
    ) -> dict[str, float]:
        """Errors over all windows of data, without one left out.

        Args:
            data: as `predict` takes them.
            rows: int, float or `None`. Rows at the end of each series that are forecast, or their
                share: of `rows` there are `rows - horizon + 1` windows. Defaults to `None`: all
                rows that have enough before them.
            season: int or `None`. Rows of a season, for the scale of `mase`. Defaults to `None`:
                that of the baseline, else of the index, or 1.

        Returns:
            Dict of `"mse"`, `"mae"`, `"rmse"` and `"mase"`, in the units of the data. The scale of
            `mase` is that of the training part, or of the rows before the last window in a series
            that `fit` has not seen; NaN where a series has no scale, since it does not change.

        Raises:
            ValueError: as `predict`, or for data without a window.
        """
        panel = self._read(data)
        season = season or getattr(self, "season", None) or self.panel.season() or 1
        actual, forecasts, pasts = [], [], []
        for number, series in enumerate(panel.series):
            count = len(series.values)
            first = self.reads if rows is None else count - held_rows(count, rows, self.horizon)
            origins = np.arange(first, count - self.horizon + 1)
            if not len(origins):
                continue
            fitted = self._fitted(number, series)
            forecasts.append(self._forecast(series, origins, fitted))
            actual.append(_targets(series.values, origins, self.horizon))
            pasts.append(self._past(number, series))
        if not forecasts:
            raise ValueError(
                f"`data` must have more rows than the {self.reads} that a forecast reads, and the "
                f"horizon of {self.horizon}. "
                f"Received: {max(len(series.values) for series in panel.series)} rows"
            )
        found = {name: function(actual, forecasts) for name, function in _METRICS.items()}
        try:
            scaled = mase(actual, forecasts, pasts, season)
        except ValueError:  # no scale
            scaled = np.nan
        return {**found, "mase": scaled}

    # Inside

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
        found = False
        for number, series in enumerate(self.panel.series):
            fitted = self._fitted(number, series)
            first = 0 if part == "train" else max(0, fitted.rows - self.reads)
            stop = fitted.rows if part == "train" else len(series.values)
            nothing = part == "validation" and fitted.rows == stop
            if nothing or stop - first < self.reads + self.horizon:
                continue
            raw = (series.values - fitted.mean) / fitted.scale
            whole = self.fill(raw[:stop])
            for v in range(raw.shape[1]):
                x, _ = windows(whole[first:, v], self.reads, self.horizon)
                _, y = windows(raw[first:stop, v], self.reads, self.horizon)
                found = True
                yield x, y
        if not found:
            raise ValueError(
                f"`{'data' if part == 'train' else 'validation'}` must leave a {part} part with a "
                f"window of {self.reads} rows that a forecast reads, and a horizon of "
                f"{self.horizon}. Received: series of up to "
                f"{max(len(series.values) for series in self.panel.series)} rows"
            )

    def _read(self, data):
        if self.panel is None:
            raise ValueError(
                "`fit` must come before a forecast. Received: a baseline that has seen no data"
            )
        if data is None:
            return self.panel
        return Panel.read(data, like=self.panel.roles)

    def _fitted(self, number, series):
        """What `fit` knows of a series, or what the series itself tells where it is new."""
        known = self.fitted.get(_key(number, series))
        return known or Fitted.of(series.values, len(series.values))

    def _past(self, number, series):
        known = self.fitted.get(_key(number, series))
        if known is None:
            return series.values[: -self.horizon]
        seen = {_key(n, s): s for n, s in enumerate(self.panel.series)}
        return seen[_key(number, series)].values[: known.rows]

    def _forecast(self, series, origins, fitted):
        if origins[0] < self.reads:
            of = "" if series.name is None else f" of the series {series.name!r}"
            raise ValueError(
                f"`history`{of} must have at least the {self.reads} rows that a forecast reads. "
                f"Received: {origins[0]} rows"
            )
        return self.forecast(self.fill(series.values), origins, fitted)

    def _widths(self, level):
        """Half widths `(horizon, V)` in units of the deviations."""
        residuals = []
        for number, series in enumerate(self.panel.series):
            fitted = self._fitted(number, series)
            first = max(fitted.rows, self.reads)
            origins = np.arange(first, len(series.values) - self.horizon + 1)
            if len(origins):
                errors = _targets(series.values, origins, self.horizon)
                errors = errors - self._forecast(series, origins, fitted)
                residuals.append(errors / fitted.scale)
        none = np.zeros((0, self.horizon, len(self.panel.variables)))
        return half_widths(np.concatenate(residuals or [none]), level)


_METRICS = {"mse": mse, "mae": mae, "rmse": rmse}


def _key(number, series):
    return number if series.name is None else series.name


def _targets(values, origins, horizon):
    """A view of the rows that follow consecutive origins, `(n, horizon, V)`."""
    return windows(values[origins[0] - 1 : origins[-1] + horizon], 1, horizon)[1]
