"""Arguments of the selective scan, for tests of its kernels."""

import numpy as np


def scan_operands(rng, batch, length, features, states, rank=None):
    """float32 arguments of `projected_scan` by name or, without a rank, of `selective_scan`."""
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")
    sizes = {"dt": np.exp(draw(batch, length, features) - 2.0)}
    if rank:
        sizes = {"low": draw(batch, length, rank), "kernel": draw(rank, features)}
        sizes["bias"] = draw(features) - 2.0
    return {
        "x": draw(batch, length, features),
        **sizes,
        "A": -np.exp(draw(features, states)),
        "B": draw(batch, length, states),
        "C": draw(batch, length, states),
        "D": draw(features),
        "initial_state": draw(batch, features, states),
    }
