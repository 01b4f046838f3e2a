import random

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_number, check_positive
from keras_ssm.forecasting.split import validation_rows
from keras_ssm.models.forecasting.closed_form import solve_shortcut
from keras_ssm.models.forecasting.fitted import Fitted
from keras_ssm.models.forecasting.intervals import residual_widths
from keras_ssm.models.forecasting.keep_best import KeepBest
from keras_ssm.models.forecasting.memory import Memory
from keras_ssm.models.forecasting.paired_gain import paired_gain
from keras_ssm.models.forecasting.panel_rows import read_panel, rows_of
from keras_ssm.models.forecasting.quantile_loss import QuantileLoss
from keras_ssm.models.forecasting.ranges import ranges
from keras_ssm.models.forecasting.reading import Reading
from keras_ssm.models.forecasting.rolling import forecasts_after
from keras_ssm.models.forecasting.training_windows import (
    Segments,
    TrainingWindows,
    ValidationWindows,
)
from keras_ssm.ops import backend
from keras_ssm.optimizers import ssm_optimizer

# Losses by name, as the mean over the values that are there.
LOSSES = {
    "mse": keras.losses.MeanSquaredError,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "mae": keras.losses.MeanAbsoluteError,
    "mean_absolute_error": keras.losses.MeanAbsoluteError,
    "huber": keras.losses.Huber,
    "log_cosh": keras.losses.LogCosh,
}


class ForecasterTraining:
    """How a forecaster trains: the shortcut in closed form, then the branch in Keras' `fit`."""

    @property
    def trainable(self) -> bool:
        """Whether the weights train; the shortcut only if it did before this was set."""
        return keras.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        made = "normalization" in vars(self)  # the end of the constructor
        trains = self.shortcut_trains if made else None
        keras.Layer.trainable.fset(self, value)
        if made:
            vars(self)["_trained_before"] = trains
            self.shortcut.trainable = bool(value) and trains

    @property
    def shortcut_trains(self):
        """Whether the shortcut trains where the model does."""
        frozen = not self.trainable and "_trained_before" in vars(self)
        return vars(self)["_trained_before"] if frozen else self.shortcut.trainable

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss="auto",
        **kwargs,
    ) -> None:
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: `"auto"`, name or optimizer. Defaults to
                `ssm_optimizer(2e-3, 1e-3, weight_decay=0.05, global_clipnorm=1.0)`.
            loss: `"auto"`, name or loss, of values in units of the training part. Defaults to the
                squared error; with `quantiles` to the pinball loss.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer(2e-3, 1e-3, weight_decay=0.05, global_clipnorm=1.0)
        if isinstance(loss, str):
            reduction = "mean_with_sample_weight"  # a value that is missing counts nowhere
            if loss == "auto" and self.quantiles is not None:
                loss = QuantileLoss(self.quantiles, reduction=reduction)
            elif loss == "auto" or loss.lower() in LOSSES:
                loss = LOSSES["mse" if loss == "auto" else loss.lower()](reduction=reduction)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def fit(
        self,
        data: object,
        validation: int | float | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        verbose: str | int = "auto",
        callbacks: list | None = None,
        *,
        static: object = None,
        freq: object = None,
        season: int | None = None,
        steps_per_epoch: int = 50,
        origins: int = 8,
        context: int | None = None,
        levels: tuple | float = (80, 90, 95),
        validation_forecasts: int = 4096,
        keep: KeepBest | None = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Finds the units of the data, solves the shortcut, trains the branch, keeps the best.

        Args:
            data: array `(time, variables)`, a list of such, a pandas frame, wide or long, or a
                `keras_ssm.forecasting.Panel`. NaN where values are missing.
            validation: int, float or `None`. Rows at the end of each series, or their share, by
                which the penalty of the shortcut and the weights are chosen, and from whose
                residuals intervals come. 0 trains on all and keeps the last weights.
                Defaults to `None`: a fifth.
            epochs: int. 0 leaves the shortcut alone. Defaults to `10`.
            batch_size: int. Segments a batch. Defaults to `32`.
            verbose, callbacks: as in `keras.Model.fit`.
            static: table of static covariates; see `Panel.read`.
            freq: frequency of the index; see `Panel.read`.
            season: int or `None`. Rows of a season, for the scale of `mase`. Defaults to that of
                the index, or 1.
            steps_per_epoch: int. Batches an epoch, drawn at random; after each the validation
                part is scored. Defaults to `50`.
            origins: int. Forecasts of a segment; of a closed loop all steps are forecast.
                Defaults to `8`.
            context: int or `None`. Steps that the branch has read before the first of these
                forecasts. Defaults to `lookback`.
            levels: int or tuple of int. Levels of the intervals that `predict` gives, in percent.
                Defaults to `(80, 90, 95)`.
            validation_forecasts: int. How many forecasts score the validation part at most.
                Defaults to `4096`.
            keep: `KeepBest` or `None`. The callback that keeps the best weights. Defaults to one
                that prefers trained weights to the shortcut alone where they are better by 1 % and
                by more than the standard error of the gain.
            **kwargs: `initial_epoch`, `validation_freq`.

        Returns:
            A `keras.callbacks.History`. `fitted["epoch"]` says after which epoch the weights that
            were kept were there; 0 is the shortcut alone.

        Raises:
            ValueError: for data that are too short, or that the columns do not describe.
        """
        check_positive(batch_size=batch_size, steps_per_epoch=steps_per_epoch, origins=origins)
        context = self.lookback if context is None else context
        check_positive(context=context, season=season or 1)
        levels = np.atleast_1d(levels).tolist()
        for level in levels:
            check_number("levels", level, low=0, high=100)
        panel = read_panel(self, data, static=static, freq=freq)
        held_out = validation_rows(panel, validation, self.horizon)
        kept = [len(s.values) - rows for s, rows in zip(panel.series, held_out, strict=True)]
        fitted = Fitted.of(self.columns, panel, kept, season)
        rows = rows_of(self, panel, fitted, trained=True)
        held_out = np.repeat(held_out, len(panel.variables))
        train, valid = ranges(rows, held_out, self.lookback, self.shortcut.steps)
        if train.counts.sum() == 0:
            raise ValueError(
                "`data` must have values to learn from before the validation part. Received: "
                f"{int((~np.isnan(rows.values)).sum())} values that are not NaN"
            )
        span = min(max(self.lookback, 16), rows.values.shape[1])
        length = min(context + span, rows.values.shape[1])
        segments = Segments(self, rows, length)
        kernel, alpha = solve_shortcut(segments, train, valid)
        self.shortcut.kernel.assign(ops.cast(kernel, self.shortcut.kernel.dtype))
        places = span if self.feeds_back else min(origins, span)
        seed = random.getrandbits(32)
        batches = TrainingWindows(
            segments, *train, span - 1, batch_size, places, steps_per_epoch, seed
        )
        self._start_head(batches)
        scored = start = None
        if valid.counts.sum():
            stride = valid.strided(validation_forecasts)
            scored = ValidationWindows(segments, *valid, span - 1, stride, 2 * batch_size)
        with self._left_intact():
            if scored is not None:
                start = keras.Model.evaluate(self, scored, verbose=0, return_dict=True)["loss"]
            best = KeepBest() if keep is None else keep
            before = self.get_weights()
            best.begin(start, before, batches)
            history = keras.Model.fit(
                self,
                x=batches,
                epochs=epochs,
                verbose=verbose,
                callbacks=[best, *(callbacks or [])],
                validation_data=scored,
                shuffle=False,
                **kwargs,
            )
            if backend.is_stateless():
                for variable in self.trainable_variables:  # see `DataTrainer.fit`
                    variable.assign(ops.copy(variable.value))
            if start is not None and best.epoch:
                gain, error = paired_gain(self, scored, before)
                if gain <= best.standard_errors * error:
                    best.epoch = 0
                    self.set_weights(before)
        widths, reading = [], Reading(self, len(rows.values))
        if start is not None and self.quantiles is None:
            count = len(panel.variables)
            widths = residual_widths(
                self, rows, valid, levels, validation_forecasts, count, reading
            )
        else:
            forecasts_after(self, rows, [], reading)
        epoch = epochs if start is None else best.epoch
        fitted = fitted.with_facts(alpha=alpha, epoch=epoch, half_widths=widths)
        vars(self)["_fitted"] = fitted.facts
        vars(self)["_memory"] = Memory(self, panel, rows, reading, data, static)
        return history

    def _start_head(self, batches):
        """Quantiles start as those of what the shortcut leaves, in units of the deviation."""
        if self.quantiles is None:
            return
        left = []
        for index in range(min(8, len(batches))):
            x, y, weight = batches[index]
            left_over = y[..., 0] - ops.convert_to_numpy(self.shortcut(x["window"]))
            if self.running is not None:
                _, deviation = self.running(x["inputs"], mask=x["padding_mask"])
                at = self.deviation_at(deviation, x["origins"])
                left_over = left_over / ops.convert_to_numpy(at)
            left.append(np.where(weight > 0, left_over, np.nan).reshape(-1, left_over.shape[-1]))
        left = np.concatenate(left)
        if self.columns.future or self.decoder is not None:  # one last layer for all steps
            left = left.reshape(-1, 1)
        values = np.nan_to_num(np.nanquantile(left, self.quantiles, axis=0)).T
        self.head_layer.output_dense.bias.assign(values.ravel())
