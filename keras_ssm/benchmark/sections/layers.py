"""The measurements of one backend, a JSON row a line."""

import json
import sys
import time

import keras
import numpy as np

from keras_ssm import layers
from keras_ssm.benchmark.memory import peak_memory
from keras_ssm.benchmark.stepping import BACKEND, layer_function, passes
from keras_ssm.benchmark.yardsticks import published

# The largest scores of an attention that are tried, in bytes.
LARGEST_ATTENTION = 2**30


def rows(shapes, names, seconds):
    """Yields a dict for each shape and layer: times in seconds, memory in bytes, ratios.

    `forward` and `step` (forward and all gradients) are medians; `published` is the training step
    of the same system as published, in turn with ours, and `ratio` theirs over ours.
    """
    for shape in shapes:
        limit = matmul_rate(seconds)
        for name in names:
            row = measure(name, tuple(shape), seconds)
            if row is not None:
                yield {
                    "backend": BACKEND,
                    "layer": name,
                    "shape": list(shape),
                    "matmul_rate": limit,
                    **row,
                }


def measure(name, shape, seconds):
    """One row, or `None` for an attention that does not fit."""
    batch, length, features, state = shape
    if name == "MultiHeadAttention" and batch * 4 * length**2 * 4 > LARGEST_ATTENTION:
        return None
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, batch, length, features)).astype("float32")
    layer = make(name, features, state)
    layer.build((None, None, features) if name != "MultiHeadAttention" else x.shape)
    ours = passes(*layer_function(layer), x, g)
    if not hasattr(layers, name):
        forward, step = alternate(ours, seconds)
        return {"forward": forward, "step": step, "memory": peak_memory(ours[1])}
    function, features_last = published(name)
    weights = {v.name: keras.ops.convert_to_numpy(v) for v in layer.trainable_variables}
    if not features_last:
        x, g = (np.ascontiguousarray(a.transpose(0, 2, 1)) for a in (x, g))
    theirs = passes(function, weights, x, g)
    forward, step, their_forward, their_step = alternate([*ours, *theirs], seconds)
    return {
        "forward": forward,
        "step": step,
        "memory": peak_memory(ours[1]),
        "published_forward": their_forward,
        "published": their_step,
        "published_memory": peak_memory(theirs[1]),
        "ratio": their_step / step,
    }


class CausalAttention(keras.layers.Layer):
    """Four heads of causal self-attention, with the signature of the other layers."""

    def __init__(self, features):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, features // 4)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)

    def call(self, x):
        return self.attention(x, x, use_causal_mask=True)


def make(name, features, state):
    """An unbuilt layer of as many outputs as inputs."""
    if name == "MultiHeadAttention":
        return CausalAttention(features)
    if name in ("LSTM", "GRU"):
        return getattr(keras.layers, name)(features, return_sequences=True)
    options = {"variant": "exp"} if name == "DSS" else {}
    return getattr(layers, name)(state_dim=state, seed=0, **options)


def alternate(functions, seconds):
    """Median time of each function, run in turn, for `seconds` each or three times."""
    times = [[] for _ in functions]
    for function in functions:
        function()
        function()
    end = time.perf_counter() + seconds * len(functions)
    while len(times[0]) < 3 or time.perf_counter() < end:
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [float(np.median(found)) for found in times]


def matmul_rate(seconds, size=2048):
    """Floating-point operations a second of a square float32 product on this backend."""
    a = np.ones((size, size), "float32")
    forward, _ = passes(lambda w, x: keras.ops.matmul(x, x), [np.zeros(1, "float32")], a, a)
    (fastest,) = alternate([forward], min(seconds, 1.0))
    return 2 * size**3 / fastest


def main():
    for row in rows(**json.loads(sys.argv[1])):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
