"""What the benchmark measures the layers against: the published formulations, written plainly.

One module a backend, in its own complex arithmetic, as the papers and their repositories compute:
a kernel as long as the sequence, by a complex Vandermonde or Cauchy matrix (of SpaceTime by
powers of its own), and a Fourier transform; for S5 and LRU a complex associative scan. They take
the weights of our layers, so that both compute the same numbers. Inputs are `(batch, features,
length)`, as published, for the systems of one feature, and `(batch, length, features)` for S5, LRU
and the block of GSS. S4ND takes `(batch, features, height, width)`, as published.
"""

import importlib

import keras


def published(system):
    """Returns the published formulation of a system on the current backend.

    Args:
        system: str. `"S4"`, `"S4D"`, `"S4PTD"`, `"DSS"` (variant `"exp"`), `"S5"`, `"S5PTD"`,
            `"LRU"`, `"SpaceTime"`, `"SGConv"`, `"LongConv"`, `"H3"`, `"Hyena"`, `"S4ND"` or
            `"GSS"`, which is a block.

    Returns:
        Tuple `(function, features_last)`: `function(weights, u)` with a dict of the layer's
        weights by name, and whether u has its features on the last axis.
    """
    module = importlib.import_module(f"keras_ssm.benchmark.yardsticks.{keras.config.backend()}")
    name = {"S4PTD": "S4D", "S5PTD": "S5"}.get(system, system)
    return getattr(module, name.lower()), name in ("S5", "LRU", "GSS")
