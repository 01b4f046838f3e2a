from typing import NoReturn

import keras
import numpy as np

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.forecasting import Backtest, Panel
from keras_ssm.models.forecasting.fitted import Fitted
from keras_ssm.models.forecasting.forecast_stream import ForecastStream
from keras_ssm.models.forecasting.intervals import named_forecasts
from keras_ssm.models.forecasting.memory import Memory
from keras_ssm.models.forecasting.panel_rows import read_panel, rows_of
from keras_ssm.models.forecasting.reading import Reading
from keras_ssm.models.forecasting.rolling import closed_loop, forecasts_after


class ForecasterUse:
    """What a forecaster does after its training: predict, go on, look back, score."""

    @property
    def fitted(self) -> dict | None:
        """What `fit` found beside the weights, a dict, or `None` before it."""
        return None if self._fitted is None else dict(self._fitted)

    def predict(
        self,
        history: object = None,
        future: object = None,
        *,
        static: object = None,
        levels: tuple | int | None = None,
    ) -> object:
        """Forecasts the rows after a history, which is read from its beginning.

        `update` then goes on from its end.

        Args:
            history: data of the columns that were trained on; see `fit`. `None`: the rows that
                were read last, by `fit`, `predict` or `update`.
            future: known covariates of the rows to come, of the kind of the history; see
                `Panel.read`.
            static: static covariates, where they are a table of their own.
            levels: int, tuple of int, or `None`. Intervals to give as well, in percent. Defaults
                to `None`: those of the `quantiles`, none without.

        Returns:
            The forecast, of the kind of the history: an array `(horizon, variables)`, a list of
            such, or a frame that continues the index. With intervals the frame has columns
            `lo-90` and `hi-90`, and an array becomes a dict.

        Raises:
            ValueError: before `fit`; for data that are not like those of the training, a history
                without a value, or covariates that end before the horizon does.
        """
        fitted = self._need_fit()
        if history is None:
            return self._predict_on(future, levels)
        panel = read_panel(self, history, static, future, like=fitted.roles)
        panel.check_future(self.horizon)
        rows = rows_of(self, panel, fitted)
        check_observed(panel)
        reading = Reading(self, len(rows.values))
        y = forecasts_after(self, rows, [rows.values.shape[1] - 1], reading)
        vars(self)["_memory"] = Memory(self, panel, rows, reading, history, static)
        return self._as_data(panel, rows, y[:, 0], levels)

    def update(
        self,
        new_rows: object,
        future: object = None,
        *,
        static: object = None,
        levels: tuple | int | None = None,
    ) -> object:
        """Reads rows that follow those read before, and forecasts what comes after them.

        Nothing is read again: a row costs the same however many came before it. The forecast is
        that of `predict` with the whole history. What was read is in no file and no copy of the
        forecaster: there `predict` reads the history again, and the state of a `stream` goes to a
        file.

        Args:
            new_rows: data as in `predict`, from one row on. Rows that the index skips are missing
                values. A series that was not there before begins with these.
            future, static, levels: as in `predict`.

        Returns:
            The forecast, as `predict` returns it, of the series that have new rows.

        Raises:
            ValueError: as `predict`, for rows that were read already, for rows of another kind,
                or of another number of series without names, or after loading, before `predict`
                or `reset`.
        """
        fitted = self._need_fit()
        memory = vars(self).get("_memory")
        if memory is None and not vars(self).get("_begins_anew"):
            raise ValueError(
                "`update` goes on from rows that were read, and files and copies of a forecaster "
                "hold none: `predict(history)` reads them, or `reset()` begins with these. "
                "Received: `update` of a forecaster that has read nothing"
            )
        if memory is None:
            return self.predict(new_rows, future, static=static, levels=levels)
        static = memory.static if static is None else static
        panel = read_panel(self, new_rows, static, future, like=fitted.roles)
        memory.check(panel)
        panel.check_future(self.horizon)
        gaps = np.repeat(memory.gaps(panel), len(panel.variables))
        rows = rows_of(self, panel, fitted, before=memory.before(panel))
        rows, reading = memory.take(panel, rows)
        forecasts = np.empty((len(rows.values), self.horizon, self.shortcut_outputs))
        states, order = [], []
        lengths = rows.lengths + gaps
        for length in np.unique(lengths):  # rows of one length, since a window moves with time
            here = np.flatnonzero(lengths == length)
            part = rows.part(here).ending(length)
            state = reading.rows(here)
            forecasts[here] = forecasts_after(self, part, [length - 1], state)[:, 0]
            states.append(state)
            order.append(here)
        reading = Reading.joined(states).rows(np.argsort(np.concatenate(order)))
        memory.put(panel, rows, reading, new_rows)
        return self._as_data(panel, rows, forecasts, levels)

    def stream(
        self, batch_size: int = 1, series: list | None = None, units: tuple | None = None
    ) -> ForecastStream:
        """Returns an object that reads rows as they come and forecasts after each.

        Args:
            batch_size: int. Number of series that are read side by side. Defaults to `1`.
            series: list of names or `None`. Of each series, the one of the training whose units
                it has; its number, where there were no names. Defaults to `None`: the one that
                there was.
            units: tuple of two or `None`. In place of `series`, what is taken off each variable
                and what it is divided by. Defaults to `None`.

        Returns:
            A `ForecastStream`.

        Raises:
            ValueError: before `fit`, with covariates, or for series of unknown units.

        Example:
            ```python
            x = np.sin(np.arange(300) / 4)
            model = keras_ssm.models.SSMForecaster(lookback=24, horizon=8)
            model.fit([x, 3 * x], validation=60, epochs=1, steps_per_epoch=2, verbose=0)
            forecasts = model.stream(series=[1])(3 * x[:50])  # (1, 50, 8, 1)
            forecasts = model.stream(units=(5.0, 2.0))(5 + 2 * x[:50])  # of another series
            ```
        """
        return ForecastStream(self, batch_size, series, units)

    def rescaled(self, step_scale: float) -> NoReturn:
        """Is refused: horizon, `lookback` and shortcut count steps of the rate of training.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "`rescaled` is not for forecasters, whose horizon, `lookback` and shortcut count steps "
            "of the sampling rate that they were trained at: resample the series instead. "
            f"Received: step_scale={step_scale}"
        )

    def reset(self) -> None:
        """Forgets what was read: `update` begins anew."""
        vars(self)["_memory"] = None
        vars(self)["_begins_anew"] = True

    def backtest(
        self,
        data: object,
        windows: int = 10,
        step: int | None = None,
        refit: bool = False,
        *,
        static: object = None,
        levels: tuple | int | None = None,
        **settings,
    ) -> Backtest:
        """Forecasts the end of a history again and again, each time from what was known then.

        Args:
            data: as in `fit`.
            windows: int. Forecasts of each series; the last one ends with the series.
                Defaults to `10`.
            step: int or `None`. Rows from one to the next. Defaults to `horizon`: without overlap.
            refit: bool. Whether a copy of the forecaster, with fresh weights, is trained on what
                came before each window. Defaults to `False`.
            static, levels: as in `predict`.
            **settings: those of `fit`, with `refit`.

        Returns:
            `Backtest`: forecasts and what came, by windows, their scores, and all of it as a
            frame.

        Raises:
            ValueError: as `predict`, or if a series is too short for one window.
        """
        step = self.horizon if step is None else step
        windows, step = check_positive(windows=windows, step=step)
        check_flags(refit=refit)
        panel = self._panel(data, static, like=None if refit else self._need_fit().roles)
        longest = max(len(series.values) for series in panel.series)
        last = longest - 1 - self.horizon
        origins = np.arange(last - (windows - 1) * step, last + 1, step)
        origins = origins[origins >= 0]
        if not len(origins):
            raise ValueError(
                f"`data` must have more rows than the horizon, {self.horizon}. "
                f"Received: at most {longest} rows"
            )
        if not refit:
            return self._rolled(panel, origins, levels)
        parts = []
        for origin in origins:
            rows_left = longest - 1 - origin
            model = keras.models.clone_model(self)
            model.fit(panel.until(rows_left), **settings)
            parts.append(model._rolled(panel.until(rows_left - self.horizon), [origin], levels))
        return Backtest.joined(parts, panel)

    def evaluate(
        self,
        data: object = None,
        rows: int | None = None,
        step: int = 1,
        *,
        static: object = None,
        levels: tuple | int | None = None,
        **kwargs,
    ) -> dict[str, float]:
        """Scores forecasts from every row of the end of a history.

        Args:
            data: as in `fit`.
            rows: int or `None`. Rows at the end that are forecast; those before are read alone.
                Defaults to all after the first.
            step: int. Rows from one forecast to the next. Defaults to `1`.
            static, levels: as in `predict`.
            **kwargs: those of Keras, which evaluates batches within `fit`.

        Returns:
            Dict of `mse`, `mae`, `rmse`, `mase`, and with intervals `weighted_quantile_loss` and
            the coverage of each.

        Raises:
            ValueError: as `predict`, or for fewer rows than the horizon.
        """
        if "_use_cached_eval_dataset" in kwargs:
            return keras.Model.evaluate(self, **kwargs)
        panel = self._panel(data, static, like=self._need_fit().roles)
        longest = max(len(series.values) for series in panel.series)
        rows = longest - 1 if rows is None else rows
        rows, step = check_positive(rows=rows, step=step)
        if not self.horizon <= rows < longest:
            raise ValueError(
                f"`rows` must be at least the horizon, {self.horizon}, and leave a row before "
                f"them. Received: rows={rows} of {longest}"
            )
        last = longest - 1 - self.horizon
        origins = np.arange(last, longest - rows - 2, -step)[::-1]
        return self._rolled(panel, origins, levels).scores

    # Within

    @property
    def shortcut_outputs(self):
        """Numbers of a step: the quantiles, or one."""
        return self.head_layer.outputs

    def _need_fit(self):
        if self._fitted is None:
            raise ValueError(
                f"{self.name} must be trained first: `fit` finds the columns and units of the "
                "data. Received: a forecaster before `fit`"
            )
        return Fitted(self._fitted)

    def _panel(self, data, static, like):
        return read_panel(self, data, static, like=like)

    def _predict_on(self, future, levels):
        memory = vars(self).get("_memory")
        if memory is None:
            raise ValueError(
                "`history` must be given: no rows were read since the forecaster was made or "
                "loaded. Received: history=None"
            )
        like = self._need_fit().roles
        panel = read_panel(self, memory.data, memory.static, future, like=like)
        panel.check_future(self.horizon)
        rows = rows_of(self, panel, self._need_fit(), before=memory.before(panel))
        rows, reading = memory.take(panel, rows)
        steps = self.shortcut.steps
        end = [rows.values.shape[1] - 1]
        y = reading.forecast(rows.future(end, steps))
        if self.feeds_back:
            ahead = rows.future(end, self.horizon)
            y = closed_loop(reading, y, self.horizon, None if ahead is None else ahead[:, 0])
        else:
            y = y[:, 0]
        return self._as_data(panel, rows, y, levels)

    def _as_data(self, panel, rows, y, levels):
        """Forecasts of rows `(rows, horizon, outputs)` as the kind of data that came in."""
        named = named_forecasts(self, panel, rows, y[:, None], levels)
        return panel.frame({k: [a[0] for a in v] for k, v in named.items()}, self.horizon)

    def _rolled(self, panel, origins, levels):
        """The `Backtest` of a panel after some of its rows, counted from the end of the longest."""
        fitted = self._need_fit()
        rows = rows_of(self, panel, fitted, origin=int(origins[0]))
        y = forecasts_after(self, rows, origins)
        named = named_forecasts(self, panel, rows, y, levels)
        scales = [fitted.seasonal_scale(series) for series in panel.series]
        return Backtest.of(panel, named, np.asarray(origins), scales)


def check_observed(panel: Panel) -> None:
    """Raises a `ValueError` for a series of which nothing was ever seen."""
    for series in panel.series:
        lacking = np.isnan(series.values).all(axis=0)
        if lacking.any():
            name = panel.variables[int(lacking.argmax())]
            of = "" if series.name is None else f" of the series {series.name!r}"
            raise ValueError(
                f"`history` must hold a value of every variable{of}. "
                f"Received: {len(series.values)} rows of NaN in {name!r}"
            )
