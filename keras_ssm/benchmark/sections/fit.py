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
        ours, theirs = (
            classifier(make(name, 1, size[-1]), size),
            classifier(plain(name, size), size),
        )
        mine, other = _in_turn([ours, theirs], x, y, batch, seconds)
        yield {
            "layer": name,
            "size": list(size),
            "rate": STEPS / mine,
            "published_rate": STEPS / other,
            "ratio": other / mine,
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
        def evaluate(self, x, initial_state, lengths, return_state, **extra):
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


def _in_turn(trained, x, y, batch, seconds):
    """Median seconds of an epoch of each model, in turn; the first epoch compiles."""
    times = [[] for _ in trained]
    fit = lambda model: model.fit(x, y, batch_size=batch, epochs=1, verbose=0)  # noqa: E731
    for model in trained:
        fit(model)
    end = time.perf_counter() + seconds * len(trained)
    while len(times[0]) < 3 or time.perf_counter() < end:
        for model, found in zip(trained, times, strict=True):
            start = time.perf_counter()
            fit(model)
            found.append(time.perf_counter() - start)
    return [float(np.median(found)) for found in times]
