"""Peak memory of every layer and evaluation, in a process that gives freed memory back."""

import math

from keras_ssm.benchmark.candidates import (
    candidates,
    mixer_class,
    picked_method,
    published_passes,
)
from keras_ssm.benchmark.memory import peak_memory


def rows(shapes, names, methods, quick=False):
    """Yields a dict for each layer, shape and evaluation: bytes of a forward and a training pass.

    Layer by layer: the small arrays of an LSTM's steps leave holes in the memory, and what is
    measured after them counts for more.

    `working` is that of the training pass less the output and the gradient of the input, in units
    of one activation (batch x length x features x 4 bytes): what the layer itself needs.

    Args:
        shapes: list of `(batch, length, features, state)`.
        names: list of str.
        methods: list of str.
        quick: bool. Whether to leave out the published formulation and the forward pass.
    """
    for name in names:
        for shape in map(tuple, shapes):
            published = None
            for layer, method, functions in candidates(name, shape, methods):
                if mixer_class(name) and published is None and not quick:
                    published = published_passes(name, layer, shape)
                yield _row(name, method, shape, functions[1:] if quick else functions)
            if published is not None:
                yield _row(name, "published", shape, published)


def _row(name, method, shape, passes):
    for function in passes:  # once before, to be compiled
        function()
    *forward, training = (peak_memory(function) for function in passes)
    activation = 4 * math.prod(shape[:3])
    return {
        "layer": name,
        "shape": list(shape),
        "method": method,
        "picked": method is not None and method == picked_method(name, shape),
        "forward_memory": forward[0] if forward else None,
        "training_memory": training,
        "working": max(0, training - 2 * activation) / activation,
    }
