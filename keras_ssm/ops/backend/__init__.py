"""What differs between backends: one module each, with the same function names.

`exact_einsum` keeps full float32 whatever the device's fast mode, `concrete` is the value of a
tensor outside a traced graph, `sequential` a loop over samples, and `diagonal_scan` the
backend's own form of `ops.scan.forward`, `None` where the portable one is best. The environment
variable `KERAS_SSM_FAST_PATHS=0` switches off the forms that the portable one can replace.
"""

import importlib
import os

import keras

SWITCH = "KERAS_SSM_FAST_PATHS"

_module = importlib.import_module(f"keras_ssm.ops.backend.{keras.config.backend()}")

exact_einsum = _module.exact_einsum
concrete = _module.concrete
sequential = _module.sequential


def diagonal_scan(dA, inputs, initial, reverse=False):
    """The backend's own scan over chunk states, or `None` where the portable form serves."""
    optional = inputs.shape[-2] is not None
    if _module.diagonal_scan is None or (optional and os.environ.get(SWITCH) == "0"):
        return None
    return _module.diagonal_scan(dA, inputs, initial, reverse)
