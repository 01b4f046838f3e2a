"""What differs between backends: one module each, with the same function names.

- `exact_einsum` keeps full float32 whatever the device's fast mode.
- `matmul` and `einsum` are for products of large tensors: full float32 too, unless a fast mode was
  chosen by name (JAX and PyTorch; `docs/performance.md`).
- `arctan2`, `cos`, `sin`, `tanh`, `maximum`, `minimum`, `cumsum`, `mean`, `complex_of` keep float64
  where keras.ops of some backend do not; the second argument of `maximum` may be a number.
- `concrete` is the value of a tensor outside a traced graph.
- `with_gradient` is a function with its own gradient, `compiled` one that XLA compiles where that
  is not done anyway.
- `sequential` is a loop over samples, `written_out` the states of one that is unrolled, and
  `LONGEST_UNROLLED` the number of steps up to which that is better.
- `map_blocks` is a function of one block after another, `blocks_pay` whether that is faster, and
  `carry_states` a fast form of `ops.carry` or `None`.
- `fused_bank` is the chunked evaluation of a diagonal bank by GPU kernels, from a sequence that
  stays as it is, or `None`; `reads_short` whether it may take one of 16 bits.
- `fused_chunks` is the chunked evaluation in one piece (a GPU kernel, on PyTorch also a function
  with its own gradient), and `fused_scan` the scan of `ops.scan`; or `None`.
- `fast_states` is that scan without its gradient, or `None`.
- `fused_zoh` is the zero-order hold of `ops.discretize` by a GPU kernel, or `None`.
- `fused_mimo` is a diagonal system of many inputs in one function, or `None`.
- `toeplitz` is `ops.toeplitz` where a backend has views of its own, else `None`.
- `pad` is `ops.pad` with zeros.
- `project` is the product of rows and a matrix, with a gradient that suits the backend.
- `contiguous` is a tensor that a batched matmul need not copy.
"""

import importlib

import keras

if keras.config.backend() not in ("jax", "tensorflow", "torch"):
    raise ImportError(
        "`KERAS_BACKEND` must be jax, tensorflow or torch. "
        f"Received: KERAS_BACKEND={keras.config.backend()!r}"
    )
_numbers = importlib.import_module(f"keras_ssm.ops.backend.{keras.config.backend()}.numbers")
_module = importlib.import_module(f"keras_ssm.ops.backend.{keras.config.backend()}")

LONGEST_UNROLLED = _module.LONGEST_UNROLLED
carry_states = _module.carry_states
compiled = _module.compiled
concrete = _module.concrete
contiguous = _module.contiguous
exact_einsum = _module.exact_einsum
fast_states = getattr(_module, "fast_states", lambda *_: None)
fused_bank = getattr(_module, "fused_bank", lambda *_: None)
fused_chunks = _module.fused_chunks
fused_zoh = getattr(_module, "fused_zoh", lambda *_: None)
fused_mimo = getattr(_module, "fused_mimo", lambda *_: None)
fused_scan = _module.fused_scan
map_blocks = getattr(_module, "map_blocks", None)  # where blocks pay
blocks_pay = _module.blocks_pay
project = getattr(_module, "project", _numbers.matmul)
reads_short = getattr(_module, "reads_short", lambda x: False)
sequential = _module.sequential
with_gradient = _module.with_gradient
toeplitz = getattr(_module, "toeplitz", None)
written_out = _module.written_out

arctan2 = _numbers.arctan2
complex_of = _numbers.complex_of
cos = _numbers.cos
cumsum = _numbers.cumsum
einsum = _numbers.einsum
matmul = _numbers.matmul
maximum = _numbers.maximum
mean = _numbers.mean
minimum = _numbers.minimum
pad = getattr(_numbers, "pad", keras.ops.pad)
sin = _numbers.sin
tanh = _numbers.tanh
