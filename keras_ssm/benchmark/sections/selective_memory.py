"""Peak memory of `Mamba`, `Mamba2` and `DeltaNet` beside the forms of others."""

import math

from keras_ssm.benchmark.memory import peak_memory
from keras_ssm.benchmark.sections.selective import NAMES, SHAPES, variants


def rows(shapes=SHAPES):
    """Yields a dict for each row of the section `selective` that is timed: bytes of both passes.

    `activations` is the training pass in units of (batch, length, inner features), with output and
    gradients.

    Args:
        shapes: list of `(batch, length, inner features, state)`.
    """
    for shape in map(tuple, shapes):
        for name in NAMES:
            for (form, method), functions in variants(name, shape).items():
                if functions is None:
                    continue
                for function in functions:  # once before, to be compiled
                    function()
                forward, training = map(peak_memory, functions)
                yield {
                    "layer": name,
                    "form": form,
                    "method": method,
                    "shape": list(shape),
                    "forward_memory": forward,
                    "training_memory": training,
                    "activations": training / (4 * math.prod(shape[:3])),
                }
