"""The selective scan of Mamba by the Pallas kernels of `selective` and `selective_slopes`.

All functions take the tensors of `ops.selective_scan`, and the kernel, bias and mask of
`ops.projected_scan` or `None`s: the product of the projection is made anew for the gradient.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.jax.numbers import einsum, matmul
from keras_ssm.ops.backend.jax.pallas import selective as kernels
from keras_ssm.ops.backend.jax.pallas.selective_slopes import slopes as slopes_kernel
from keras_ssm.ops.backend.scan_plan import ScanPlan


@functools.partial(jax.jit, static_argnames="keep")
def outputs(x, given, A, B, C, D, initial, kernel, bias, mask, keep=False):
    """Outputs in the dtype of x and the last state, and with `keep` what `slopes` needs."""
    plan = plan_of(x, A)
    system = _system(x, given, A, B, C, kernel, bias, mask)
    start = None if initial is None else initial.mT
    if plan.G > 1:
        start = _starts(plan, system, x, B, A, start)
    results = [(x.shape, x.dtype), _states(plan, plan.batch)]
    results += [_states(plan, plan.kept)] if keep else []
    options = {**system, "D": D, "start": start}
    y, last, *kept = _call(plan, kernels.outputs, options, results, keep=keep)
    return (y, last.mT), kept[0] if keep else None


@jax.jit
def slopes(tensors, upstream, kept):
    """The gradients of all tensors, as a tuple."""
    x, given, A, B, C, D, initial, kernel, bias, mask = tensors
    (dy, d_last), plan = upstream, plan_of(x, A)
    system = _system(x, given, A, B, C, kernel, bias, mask)
    later = d_last.mT
    if plan.G > 1:
        later = _starts(plan, system, dy, C, A, later, adjoint=True)
    of_weights = (plan.blocks, plan.batch, plan.length, plan.states), "float32"
    results = [
        (x.shape, x.dtype),
        (x.shape, system["raw"].dtype),
        _states(plan, plan.rows),
        of_weights,
        of_weights,
        ((plan.rows, plan.features), "float32"),
        _states(plan, plan.batch),
        _states(plan, plan.rows * plan.every),  # scratch
    ]
    options = {**system, "D": D, "dy": dy, "kept": kept, "later": later}
    dx, d_given, dA, dB, dC, dD, d_initial, _ = _call(plan, slopes_kernel, options, results)
    d_kernel = d_bias = None
    if kernel is not None:
        d_kernel, d_bias = einsum("blr,blh->rh", given, d_given), jnp.sum(d_given, axis=(0, 1))
        d_given = einsum("blh,rh->blr", d_given, kernel)
    dB, dC = (jnp.sum(d, axis=0).astype(z.dtype) for d, z in ((dB, B), (dC, C)))
    dD = None if D is None else jnp.sum(dD, axis=0)
    d_initial = None if initial is None else d_initial.mT
    d_mask = None if mask is None else jnp.zeros_like(mask)
    return dx, d_given, jnp.sum(dA, axis=0).mT, dB, dC, dD, d_initial, d_kernel, d_bias, d_mask


def plan_of(x, A):
    return ScanPlan(*x.shape, A.shape[1])


def _system(x, given, A, B, C, kernel, bias, mask):
    """What kernels read, by name."""
    raw = given if kernel is None else matmul(given, kernel)
    return {"x": x, "raw": raw, "bias": bias, "mask": mask, "A": A, "B": B, "C": C}


def _states(plan, count):
    return (count, plan.states, plan.features), "float32"


def _starts(plan, system, x, W, A, initial, adjoint=False):
    """The states before each segment, in the way of the walk."""
    used = {name: system[name] for name in ("raw", "bias", "mask", "A")}
    results = [_states(plan, plan.rows), ((plan.rows, plan.features), "float32")]
    end, total = _call(plan, kernels.ends, {**used, "x": x, "W": W}, results, adjoint=adjoint)
    split = lambda z: jnp.moveaxis(z.reshape(plan.batch, plan.G, *z.shape[1:]), 1, 0)
    rates = A.mT

    def step(state, segment):
        end, total = segment
        return jnp.exp(total[:, None] * rates) * state + end, state

    first = jnp.zeros((plan.batch, plan.states, plan.features), "float32")
    first = first if initial is None else initial
    options = {"reverse": adjoint, "unroll": min(plan.G, 16)}
    return jnp.moveaxis(lax.scan(step, first, (split(end), split(total)), **options)[1], 0, 1)


def _call(plan, kernel, operands, results, **options):
    """Runs a kernel on all blocks of features and all segments."""
    operands = {name: x for name, x in operands.items() if x is not None}
    call = pl.pallas_call(
        functools.partial(kernel, plan=plan, names=tuple(operands), **options),
        out_shape=[jax.ShapeDtypeStruct((math.prod(shape),), dtype) for shape, dtype in results],
        grid=(plan.blocks, plan.rows),
        compiler_params=plgpu.CompilerParams(num_warps=-(-plan.block // 32)),
        interpret=bank.INTERPRETED,
    )
    found = call(*(x.ravel() for x in operands.values()))
    return [x.reshape(shape) for x, (shape, _) in zip(found, results, strict=True)]
