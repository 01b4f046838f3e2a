import keras
import numpy as np


class KeepBest(keras.callbacks.Callback):
    """Ends a training with the weights that were best, those before it among them.

    Args:
        start: float or `None`. What the model scores before the first step; `None` keeps the last
            weights.
        data: dataset whose attribute `epoch` follows the epochs of the training.
        monitor: str. What is compared, the less the better. Defaults to `"val_loss"`.

    Attributes:
        epoch: int. The number of epochs after which it was best; 0 is before the first.
    """

    def __init__(self, start: float | None, data, monitor: str = "val_loss"):
        super().__init__()
        self.data = data
        self.monitor = monitor
        self.best, self.epoch, self.weights = start, 0, None

    def on_train_begin(self, logs=None):
        self.weights = self.model.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if self.best is None or value is None or not np.isfinite(value):
            return
        if value < self.best:
            self.best, self.epoch, self.weights = float(value), epoch + 1, self.model.get_weights()

    def on_train_end(self, logs=None):
        if self.best is not None:
            self.model.set_weights(self.weights)
