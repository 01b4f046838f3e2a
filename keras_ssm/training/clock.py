import contextlib
import time

import keras

from keras_ssm.training.run_backup import RunState


class Clock(RunState):
    """Counts the seconds and steps of a training, those before an interruption too."""

    def __init__(self):
        super().__init__()
        self.seconds = {"wall_seconds": 0.0, "processor_seconds": 0.0}
        self.steps = 0
        self.started = _now()

    def on_train_begin(self, logs=None):
        self.started = _now()

    def on_epoch_begin(self, epoch, logs=None):
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        now = _now()
        for name, before, after in zip(self.seconds, self.started, now, strict=True):
            self.seconds[name] += after - before
        self.started = now
        self.steps += self.batches

    def get_state(self):
        return {"seconds": self.seconds, "steps": self.steps}

    def set_state(self, state):
        self.seconds, self.steps = dict(state["seconds"]), state["steps"]


@contextlib.contextmanager
def one_epoch(callbacks: list[keras.callbacks.Callback]):
    """Counts the time within as one epoch, for a model that does not learn in steps."""
    (clock,) = [callback for callback in callbacks if isinstance(callback, Clock)]
    clock.on_train_begin()
    clock.on_epoch_begin(0)
    yield
    clock.on_epoch_end(0)


def _now():
    return time.monotonic(), time.process_time()
