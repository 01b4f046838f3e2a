"""Ends a training whose loss or weights are not finite, and finds the first such weight."""

import math
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ssm.atomic_file import writing_file


class NotFinite(ValueError):
    """Raised by `StopAtNaN`: `epoch`, `batch`, the `loss` then, and the mean `before`."""

    def __init__(self, epoch: int, batch: int, loss: float, before: float | None):
        self.epoch, self.batch, self.loss, self.before = epoch, batch, loss, before
        super().__init__(self.message())

    def message(self, finding: str = "") -> str:
        """Returns the message of the error, with what a repetition of the epoch found."""
        is_loss = not math.isfinite(self.loss)
        fault = f"loss={self.loss}" if is_loss else "weights that are no numbers"
        former = "" if self.before is None else f", {self.before:.6g} before"
        return (
            "The loss and the weights must stay finite; a smaller `learning_rate` may help. "
            f"{finding}Received: {fault}{former}, at step {self.batch + 1} of epoch "
            f"{self.epoch + 1}"
        )


class StopAtNaN(keras.callbacks.Callback):
    """Ends a training when its loss, or a weight at the end of an epoch, is not finite.

    It comes before the backup, which thus holds good weights at all times.

    Raises:
        NotFinite: from within `fit`.
    """

    def __init__(self):
        super().__init__()
        self.epoch, self.batch, self.before = 0, 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.batch = batch
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise NotFinite(self.epoch, batch, loss, self.before)
        self.before = loss

    def on_epoch_end(self, epoch, logs=None):
        if not all(finite(weight) for weight in self.model.weights):
            raise NotFinite(epoch, self.batch, (logs or {}).get("loss", 0.0), self.before)


class Found(NamedTuple):
    """What `FirstNotFinite` found.

    Fields:
        epoch, batch: int. The step after which weights were not finite.
        paths: list of str. The weights that were not finite then, in the order of the model.
        largest: str. The weight with the largest entry before that step.
        size: float. That entry.
    """

    epoch: int
    batch: int
    paths: list[str]
    largest: str
    size: float


class RepetitionDone(Exception):
    """Ends a repetition; no error."""


class FirstNotFinite(keras.callbacks.Callback):
    """Watches the weights while an epoch is repeated, and ends it where one is not finite.

    Args:
        path: `Path` of a weights file, ending in `.weights.h5`: the weights before that step.
        until: `NotFinite`. Where the repetition ends at the latest.
    """

    def __init__(self, path: Path, until: NotFinite):
        super().__init__()
        self.path = path
        self.until = until
        self.first = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.kept = self._values()

    def on_train_batch_end(self, batch, logs=None):
        weights = self.model.weights
        not_finite = [weight.path for weight in weights if not finite(weight)]
        if not not_finite:
            if (self.epoch, batch) >= (self.until.epoch, self.until.batch):
                raise RepetitionDone
            self.kept = self._values()
            return
        before = self.kept[: len(weights)]
        sizes = [float(np.abs(value).max(initial=0.0)) for value in before]
        largest = int(np.argmax(sizes))
        self.first = Found(self.epoch, batch, not_finite, weights[largest].path, sizes[largest])
        for variable, value in zip(self._variables(), self.kept, strict=True):
            variable.assign(value)
        with writing_file(self.path) as scratch:
            self.model.save_weights(scratch)
        raise RepetitionDone

    def _values(self):
        return [ops.convert_to_numpy(variable).copy() for variable in self._variables()]

    def _variables(self):
        """The weights, then the state of the optimizer, which the file holds too."""
        model = self.model
        return [*model.weights, *model.optimizer.variables]


def finite(weight) -> bool:
    """Whether all numbers of a weight are finite."""
    return bool(ops.all(ops.isfinite(ops.convert_to_tensor(weight))))
