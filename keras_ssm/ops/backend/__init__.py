"""What differs between backends: one module each, with the same function names.

`exact_einsum` keeps full float32 whatever the device's fast mode, `concrete` is the value of a
tensor outside a traced graph, `sequential` a loop over samples, `written_out` the states of one
that is unrolled, and `LONGEST_UNROLLED` the number of steps up to which that is better.
"""

import importlib

import keras

_module = importlib.import_module(f"keras_ssm.ops.backend.{keras.config.backend()}")

LONGEST_UNROLLED = _module.LONGEST_UNROLLED
exact_einsum = _module.exact_einsum
concrete = _module.concrete
sequential = _module.sequential
written_out = _module.written_out
