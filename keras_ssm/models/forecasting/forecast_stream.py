import keras
import numpy as np

from keras_ssm.models.forecasting.panel_rows import PanelRows
from keras_ssm.models.forecasting.reading import Reading
from keras_ssm.models.forecasting.rolling import forecasts_after
from keras_ssm.models.streaming.chunk_shapes import ChunkShapes
from keras_ssm.models.streaming.stream import Stream


class ForecastStream(Stream):
    """Reads the rows of time series as they come: chunks in, a forecast after each row out.

    `SSMForecaster.stream` makes one. A forecast is what `predict` gives for all rows that were read
    so far, and costs the same however many there were. Apart from `update`, whose rows come with an
    index, several streams of one forecaster go their own ways, and their states go to files.

    Args:
        task: `SSMForecaster` after `fit`.
        batch_size: int. Number of series that are read side by side. Defaults to `1`.
        series: list of names or `None`. Of each series, the one of the training whose units it
            has; its number from 0 on, where the training had no names. Defaults to `None`: the one
            that there was.
        units: tuple of two or `None`. In place of `series`, for one that was not trained on: what
            is taken off its variables, and what they are divided by, numbers or arrays
            `(variables,)` or `(batch_size, variables)`. `predict` takes the mean and the standard
            deviation of the history. Defaults to `None`.

    Call arguments:
        chunk: array `(batch_size, rows, variables)`, for one series also `(rows, variables)`, or a
            list of `batch_size` arrays of as many rows as each has. NaN is a missing value.

    Returns:
        Array `(batch_size, rows, horizon, variables)`: after each row, the forecast of the next
        `horizon` rows; with quantiles another axis of them. NaN before the first value of a
        variable, and for rows that a series does not have.

    Raises:
        ValueError: for a forecaster before `fit` or with covariates, unknown units, and chunks
            of another shape, with infinities, or after another `fit`.

    Example:
        ```python
        model = keras_ssm.models.SSMForecaster(lookback=24, horizon=8)
        rows = np.sin(np.arange(300) / 4)
        model.fit(rows, validation=60, epochs=1, verbose=0)
        stream = model.stream()
        forecasts = stream(rows[:100])  # (1, 100, 8, 1)
        forecasts = stream(rows[100:101])  # (1, 1, 8, 1)
        ```
    """

    def __init__(
        self,
        task: keras.Model,
        batch_size: int = 1,
        series: list | None = None,
        units: tuple | None = None,
    ):
        fitted = task._need_fit()
        if task.columns.width > 1:
            raise ValueError(
                "A stream reads values alone: covariates come in tables, which `update` reads. "
                f"Received: a forecaster with {task.columns.width - 1} features of covariates"
            )
        self._fitted = fitted.facts
        self._variables = fitted.center.shape[1]
        super().__init__(task, batch_size)
        self._series, self._units = series, units
        if units is None:
            places = _places(fitted, series, self._batch_size)
            center, scale = fitted.center[places], fitted.scale[places]
        else:
            center, scale = _given_units(units, series, (self._batch_size, self._variables))
        self._center, self._scale = center.ravel(), scale.ravel()

    def begin(self):
        self._reading = Reading(self._task, self._batch_size * self._variables)

    def begin_rows(self, rows):
        current, fresh = self._reading, Reading(self._task, len(self._reading))
        order = np.arange(len(current)) + len(current) * np.repeat(rows, self._variables)
        self._reading = Reading.joined([current, fresh]).rows(order)

    def another(self):
        return ForecastStream(self._task, self._batch_size, self._series, self._units)

    def parts(self):
        return self._reading.arrays()

    def set_parts(self, parts):
        self._reading = Reading(self._task, len(self._reading))
        self._reading.load(parts)

    def read(self, chunk):
        if self._task._need_fit().facts is not self._fitted:
            raise ValueError(
                "A stream reads in the units of the `fit` that was before it: make another one "
                "with `stream`. Received: a chunk after a new `fit`"
            )
        if hasattr(chunk, "columns"):
            raise ValueError(
                "`chunk` must be an array: frames come with an index, which `update` reads. "
                f"Received: {type(chunk).__name__}"
            )
        x, there = ChunkShapes(self._batch_size, self._variables).read(chunk)
        if x.dtype.kind not in "fiu" or np.isinf(x).any():
            raise ValueError(
                "`chunk` must hold finite numbers, or NaN where a value is missing. "
                f"Received: {'infinities' if x.dtype.kind in 'fiu' else f'dtype {x.dtype}'}"
            )
        lengths = there.sum(axis=1)
        values = np.swapaxes(x.astype("float64"), 1, 2).reshape(-1, x.shape[1])
        values = (values - self._center[:, None]) / self._scale[:, None]
        horizon, outputs = self._task.horizon, self._task.shortcut_outputs
        forecasts = np.full((len(values), x.shape[1], horizon, outputs), np.nan)
        readings, order = [], []
        of_rows = np.repeat(lengths, self._variables)
        for length in np.unique(of_rows):  # equal numbers of rows are read side by side
            same_length = np.flatnonzero(of_rows == length)
            reading = self._reading.rows(same_length)
            if length:
                forecasts[same_length, :length] = self._forecasts(
                    reading, values[same_length, :length]
                )
            readings.append(reading)
            order.append(same_length)
        self._reading = Reading.joined(readings).rows(np.argsort(np.concatenate(order)))
        forecasts = self._center[:, None, None, None] + self._scale[:, None, None, None] * forecasts
        forecasts = forecasts.reshape(self._batch_size, self._variables, *forecasts.shape[1:])
        forecasts = np.moveaxis(forecasts, 1, 3)
        return forecasts if self._task.quantiles is not None else forecasts[..., 0], lengths

    def _forecasts(self, reading, values):
        """After each step `(rows, steps, horizon, outputs)`, in the units of the training."""
        rows, steps = values.shape
        ones = np.ones(rows)
        none = np.zeros((rows, steps, 0))
        panel = PanelRows(values, none, None, 0 * ones, ones, ones.astype(int), steps * ones)
        return forecasts_after(self._task, panel, np.arange(steps), reading)


def _places(fitted, series, batch):
    """Which series of the training each row of a stream has its units from."""
    names = fitted.facts["series"]
    place_of = fitted.places if any(name is not None for name in names) else _numbers(len(names))
    if series is None and len(names) == 1:
        return np.zeros(batch, int)
    own = [series] * batch if isinstance(series, str) else series
    if own is None or len(own) != batch or any(name not in place_of for name in own):
        raise ValueError(
            f"`series` must name, for each of {batch} rows, the series of the training whose "
            f"units it has, of {list(place_of)[:10]}; or `units` gives them. "
            f"Received: series={series!r}"
        )
    return np.array([place_of[name] for name in own])


def _numbers(count):
    return dict(zip(range(count), range(count), strict=True))


def _given_units(units, series, shape):
    """Center and scale of each row and variable, two arrays of this shape."""
    try:
        center, scale = (np.broadcast_to(np.asarray(part, "float64"), shape) for part in units)
        good = bool(np.isfinite(center).all() and np.isfinite(scale).all() and (scale > 0).all())
    except (TypeError, ValueError):
        good = False
    if series is not None or not good:
        raise ValueError(
            "`units` must be a pair, what is taken off and the positive numbers that divide, of "
            f"shape {shape} or less, without `series`. Received: units={units!r}, series={series!r}"
        )
    return center, scale
