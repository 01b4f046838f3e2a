"""The series of a panel as rows of the branch: one for each variable, in units of the training."""

from typing import NamedTuple

import numpy as np

from keras_ssm.forecasting import Panel
from keras_ssm.models.forecasting.forecaster_inputs import last_seen


class PanelRows(NamedTuple):
    """Rows of unequal length, which end together.

    Fields:
        values: array `(rows, steps)`, NaN where missing and before a series begins.
        covariates: array `(rows, steps, features)`, finite.
        ahead: array `(rows, steps + rows ahead, features)` or `None`. Covariates that are known.
        center, scale: arrays `(rows,)`. A value in its own unit is `center + scale * value`.
        series: integers `(rows,)`. The series that a row belongs to; its variables follow each
            other.
        lengths: integers `(rows,)`.
    """

    values: np.ndarray
    covariates: np.ndarray
    ahead: np.ndarray | None
    center: np.ndarray
    scale: np.ndarray
    series: np.ndarray
    lengths: np.ndarray

    def part(self, rows):
        """Some of the rows."""
        return PanelRows(*(None if field is None else field[rows] for field in self))

    def ending(self, steps):
        """The last steps; missing ones where there are fewer, as the index skipped them."""
        total = self.values.shape[1]
        edges = [(0, 0), (max(0, steps - total), 0)]
        first = max(0, total - steps)
        ahead = self.ahead
        return self._replace(
            values=np.pad(self.values, edges, constant_values=np.nan)[:, first:],
            covariates=np.pad(self.covariates, [*edges, (0, 0)])[:, first:],
            ahead=None if ahead is None else np.pad(ahead, [*edges, (0, 0)])[:, first:],
        )

    def future(self, origins, steps):
        """Known covariates after some steps: `(rows, origins, steps, features)`, or `None`.

        Raises:
            ValueError: where they end before the forecast does.
        """
        if self.ahead is None:
            return None
        places = np.asarray(origins)[:, None] + 1 + np.arange(steps)
        if places.size and places.max() >= self.ahead.shape[1]:
            raise ValueError(
                "`future` must hold the known covariates of every row of the forecast. Received: "
                f"{self.ahead.shape[1] - self.values.shape[1]} rows past the last, of {steps}"
            )
        return self.ahead[:, places]


def read_panel(model, data, static=None, future=None, freq=None, like=None):
    """A `Panel` of what the columns of a forecaster name.

    Args:
        model: `SSMForecaster`.
        data, static, future, freq, like: see `Panel.read`.

    Raises:
        ValueError: as `Panel.read` does, or for other categories than the model has.
    """
    columns = model.columns
    if like is not None:
        return Panel.read(data, static=static, future=future, like=like)
    panel = Panel.read(
        data,
        target=columns.target,
        historic=columns.historic,
        known=columns.known,
        static=columns.static or None if static is None else static,
        categorical=list(columns.categorical),
        future=future,
        freq=freq,
    )
    columns.check(panel.roles)
    return panel


def rows_of(model, panel, fitted, before=None, trained=False, origin=None):
    """The rows of a panel.

    Args:
        model: `SSMForecaster`.
        panel: `Panel`.
        fitted: `Fitted`. The units.
        trained: bool. Whether the series are those of the training, in that order.
        before: array `(rows, features)` or `None`. The covariates of the step before the first.
        origin: int or `None`. The step, of the longest series, after which the first forecast
            follows: later ones do not tell units. Defaults to the last.

    Returns:
        `PanelRows`.
    """
    columns, count = model.columns, len(panel.variables)
    lengths = np.array([len(series.values) for series in panel.series])
    later = [len(series.known) - len(series.values) for series in panel.series]
    steps, extra = int(lengths.max()), min(later) if columns.known else 0
    rows = len(panel.series) * count
    values = np.full((rows, steps), np.nan)
    covariates = np.zeros((rows, steps, columns.width - 1))
    ahead = np.zeros((rows, steps + extra, columns.future)) if columns.future else None
    center, scale = np.empty(rows), np.empty(rows)
    for i, series in enumerate(panel.series):
        place = slice(i * count, (i + 1) * count)
        start = steps - len(series.values)
        rows_told = None if origin is None else origin + 1 - start
        center[place], scale[place] = fitted.units(series, i if trained else None, rows_told)
        own = (series.values.T - center[place, None]) / scale[place, None]
        values[place, start:] = own
        if columns.width == 1:
            continue
        features = fitted.covariates(columns, series, len(series.values) + extra)
        first = np.zeros(features.shape[1]) if before is None else before[i * count]
        features = last_seen(features.T, first).T
        covariates[place, start:] = features[: len(series.values)]
        if ahead is not None:
            ahead[place, start:] = features[:, columns.known_features]
    return PanelRows(
        values,
        covariates,
        ahead,
        center,
        scale,
        np.repeat(np.arange(len(panel.series)), count),
        np.repeat(lengths, count),
    )
