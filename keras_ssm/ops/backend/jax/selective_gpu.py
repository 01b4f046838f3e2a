"""The selective scan on an NVIDIA GPU, where the Pallas kernels were found to be right."""

import functools
import math

import jax
import jax.numpy as jnp

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.kernel_support import fast_paths_enabled
from keras_ssm.ops.backend.scan_plan import LARGEST_STATE, ScanPlan
from keras_ssm.ops.backend.walk_plan import LARGEST

SEQUENCES = "float32", "bfloat16"


def selective_by_kernels(x, dt, A, B, C, D, initial, portable, projection=()):
    """`ops.selective_scan` or `ops.projected_scan` by GPU kernels, or `None`.

    Args:
        x, dt, A, B, C, D, initial, portable, projection: those of `in_place.fused_selective`.
            x, B and C, and dt without a projection, may be bfloat16; the rest is float32.
    """
    kernel, bias, mask = projection or (None, None, None)
    if not _applies(x, dt, A, B, C, D, initial, kernel, bias):
        return None

    def plain(x, dt, A, B, C, D, initial, *projection):
        tensors = [z if z is None else z.astype("float32") for z in (x, dt, A, B, C, D, initial)]
        if kernel is None:
            y, last = portable(*tensors)
        else:
            *weights, seen = projection
            y, last = portable(*tensors, *weights, None if seen is None else seen != 0)
        return y.astype(x.dtype), last

    plan = ScanPlan(*x.shape, A.shape[1])
    shape = jax.ShapeDtypeStruct
    result = shape(x.shape, x.dtype), shape((x.shape[0], *A.shape), "float32")
    kept = shape((plan.kept, plan.states, plan.features), "float32")
    functions = bank.kernels("mamba")
    scan = bank.with_kernels(
        lambda *tensors: functions.outputs(*tensors)[0],
        functions.slopes,
        plain,
        result,
        functools.partial(functions.outputs, keep=True),
        kept,
    )
    seen = None if mask is None else mask.astype("float32")
    return scan(x, dt, A, B, C, D, initial, kernel, bias, seen)


def _applies(x, dt, A, B, C, D, initial, kernel, bias):
    if not fast_paths_enabled() or not bank.has_kernels() or A.shape[1] > LARGEST_STATE:
        return False
    if not all(isinstance(n, int) and n > 0 for n in (*x.shape, A.shape[1])) or bank.is_cut(x):
        return False
    sequences, system = (x, dt, B, C), (A, D, initial)
    if kernel is not None:
        sequences, system = (x, B, C), (*system, dt, kernel, bias)
    if any(z.dtype.name not in SEQUENCES for z in sequences):
        return False
    if any(z is not None and z.dtype != jnp.float32 for z in system):
        return False
    plan = ScanPlan(*x.shape, A.shape[1])
    states = max(plan.kept, plan.rows * plan.every) * math.prod(A.shape)
    if max(states, plan.blocks * math.prod(B.shape), x.size) > LARGEST:
        return False
    return bank.known_right("error_of_selective_scan", x.dtype.name, plan.NM)
