"""Training steps a second of a classifier, and of the same on the published formulation."""

import time

import keras
import numpy as np
from keras import ops

from keras_ssm import layers, models
from keras_ssm.benchmark.candidates import make
from keras_ssm.benchmark.yardsticks import published

# batch, length, width, blocks, state
SIZE = (32, 1024, 128, 4, 64)
STEPS = 4  # in an epoch


def rows(names, seconds, size=SIZE):
    """Yields a dict for each layer: steps of `fit` a second, and the ratio to the published.

    The two models differ in how the mixer evaluates and in nothing else; epochs of both alternate.

    Args:
        names: list of str. Layers of the family.
        seconds: float. Time for each model.
        size: tuple `(batch, length, width, blocks, state)`.
    """
    batch, length, *_ = size
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * batch, length, 1)).astype("float32")
    y = rng.integers(10, size=STEPS * batch)
    for name in names:
        compared = (
            classifier(make(name, 1, size[-1]), size),
            classifier(plain(name, size), size),
        )
        seconds_a_step, published_seconds = _in_turn(compared, x, y, batch, seconds)
        yield {
            "layer": name,
            "size": list(size),
            "rate": 1.0 / seconds_a_step,
            "published_rate": 1.0 / published_seconds,
            "ratio": published_seconds / seconds_a_step,
        }


def classifier(mixer, size):
    """A compiled `SSMClassifier` around clones of the mixer."""
    _, _, width, blocks, _ = size
    backbone = models.SSMBackbone(mixer, num_layers=blocks, hidden_dim=width, input_dim=1)
    model = models.SSMClassifier(backbone, num_classes=10)
    model.compile()
    return model


def plain(name, size):
    """An unbuilt layer with the same weights that evaluates as published."""
    options = {"variant": "exp"} if name == "DSS" else {}
    return published_class(name)(state_dim=size[-1], seed=0, **options)


def published_class(name):
    """A subclass of the layer of that name which evaluates by the published formulation."""
    if name in _CLASSES:
        return _CLASSES[name]
    function, features_last = published(name)

    class Published(getattr(layers, name)):
        def evaluate(self, x, mask=None, initial_state=None, return_state=False, **extra):
            if initial_state is not None or return_state:
                raise ValueError(
                    f"The published formulation has no state. Received: return_state={return_state}"
                )
            weights = {v.name: self.tensor(v) for v in self.trainable_variables}
            if features_last:
                return function(weights, x), None
            return ops.transpose(function(weights, ops.transpose(x, (0, 2, 1))), (0, 2, 1)), None

    Published.__name__ = f"Published{name}"
    register = keras.saving.register_keras_serializable("keras_ssm_benchmark", f"Published{name}")
    _CLASSES[name] = register(Published)
    return _CLASSES[name]


_CLASSES = {}


class _StepTimes(keras.callbacks.Callback):
    """Seconds of each step of an epoch but the first, which also waits for the data."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.last = None

    def on_train_batch_end(self, batch, logs=None):
        ops.convert_to_numpy(logs["loss"])  # waits for the step
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


def _in_turn(trained, x, y, batch, seconds):
    """Median seconds of a step of each model, epochs in turn; the first epoch compiles."""
    for model in trained:
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
    times = [_StepTimes() for _ in trained]
    end = time.perf_counter() + seconds * len(trained)
    while len(times[0].seconds) < 3 * (STEPS - 1) or time.perf_counter() < end:
        for model, epoch_times in zip(trained, times, strict=True):
            model.fit(x, y, batch_size=batch, epochs=1, verbose=0, callbacks=[epoch_times])
    return [float(np.median(epoch_times.seconds)) for epoch_times in times]
