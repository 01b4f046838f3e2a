from pathlib import Path

import keras
import numpy as np

from keras_ssm.atomic_file import writing_file
from keras_ssm.checks import check_number
from keras_ssm.types import PathLike


class KeepBest(keras.callbacks.Callback):
    """Ends a training with the weights that were best, those before it among them.

    Forecasts of a validation part overlap, so that small gains say little: trained weights must be
    better than those before the training by a margin, and `SSMForecaster.fit` asks in the end
    whether the gain exceeds its standard error.

    Args:
        margin: float. Share of the first score by which trained weights must be better.
            Defaults to `0.01`.
        filepath: str, `Path` or `None`. Where the best weights are kept, ending in `.weights.h5`,
            for a training that may be interrupted: with `get_state` and `set_state` they are
            found again. Defaults to `None`: in memory.
        monitor: str. What is compared, the less the better. Defaults to `"val_loss"`.
        standard_errors: float. How many standard errors the gain of the best weights must exceed,
            over stretches of the validation part as long as a horizon. Defaults to `1.0`.

    Attributes:
        epoch: int. The number of epochs after which it was best; 0 is before the first.
    """

    finished = False  # a resumed run checks whether it is finished

    def __init__(
        self,
        margin: float = 0.01,
        filepath: PathLike | None = None,
        monitor: str = "val_loss",
        standard_errors: float = 1.0,
    ):
        super().__init__()
        check_number("margin", margin, low=0, high=1)
        check_number("standard_errors", standard_errors, low=0)
        self.margin, self.standard_errors = margin, standard_errors
        self.path = None if filepath is None else Path(filepath)
        self.monitor = monitor
        self.best, self.epoch, self.weights, self.data = None, 0, None, None

    def begin(self, start: float | None, weights: list[np.ndarray], data) -> None:
        """What there is before the first step.

        Args:
            start: float or `None`. What the model scores; `None` keeps the last weights.
            weights: list of arrays.
            data: dataset whose attribute `epoch` follows the epochs of the training.
        """
        self.best, self.epoch, self.weights, self.data = start, 0, weights, data

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if self.best is None or value is None or not np.isfinite(value):
            return
        if value < (self.best if self.epoch else self.best * (1.0 - self.margin)):
            self.best, self.epoch = float(value), epoch + 1
            if self.path is None:
                self.weights = self.model.get_weights()
            else:
                with writing_file(self.path) as scratch:
                    self.model.save_weights(scratch)

    def on_train_end(self, logs=None):
        if self.best is None:
            return
        if self.epoch and self.path is not None:
            self.model.load_weights(self.path)
        else:
            self.model.set_weights(self.weights)

    def get_state(self) -> dict:
        """What a training that goes on must know again."""
        return {"best": self.best, "epoch": self.epoch}

    def set_state(self, state: dict) -> None:
        """Knows it again."""
        self.best, self.epoch = state["best"], state["epoch"]
