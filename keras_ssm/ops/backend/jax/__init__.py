"""JAX forms of the primitives that differ between backends."""

import functools
import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax

from keras_ssm.ops.backend import xla
from keras_ssm.ops.backend.in_place import selective as in_place_selective
from keras_ssm.ops.backend.in_place.gate import gated
from keras_ssm.ops.backend.in_place.short_conv import fused_conv_silu
from keras_ssm.ops.backend.jax import tree as jax_tree
from keras_ssm.ops.backend.jax.bank import fused_bank, reads_short
from keras_ssm.ops.backend.jax.blocks import map_blocks
from keras_ssm.ops.backend.jax.dual import dual_outputs
from keras_ssm.ops.backend.jax.numbers import (
    arctan2,
    circular,
    complex_of,
    cos,
    cumsum,
    einsum,
    exact_einsum,
    largest,
    matmul,
    maximum,
    mean,
    minimum,
    sin,
    sum_of_products,
    tanh,
)
from keras_ssm.ops.backend.jax.programs import program, step_program, were_given_away
from keras_ssm.ops.backend.jax.selective_gpu import selective_by_kernels
from keras_ssm.ops.exporting import loops_allowed

__all__ = [
    "arctan2",
    "assign_part",
    "blocks_side_by_side",
    "circular",
    "complex_of",
    "cos",
    "cumsum",
    "dense",
    "device_name",
    "einsum",
    "exact_einsum",
    "export_arguments",
    "exports_erf",
    "fused_bank",
    "fused_conv_silu",
    "fused_dual",
    "fused_scan",
    "fused_selective",
    "gated",
    "is_stateless",
    "largest",
    "loops_over_chunks",
    "map_blocks",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "program",
    "project",
    "reads_short",
    "recomputed",
    "runs_in_blocks",
    "scan_states",
    "sequential",
    "sin",
    "static_value",
    "step_program",
    "sum_of_products",
    "tanh",
    "were_given_away",
    "with_gradient",
    "writes_in_place",
]

# Steps from which blocks side by side are faster than one loop.
SHORTEST_IN_BLOCKS = 128


@functools.cache
def device_name():
    """The first GPU as its driver names it, or `"cpu"` where there is none."""
    return "cpu" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind


def static_value(x):
    """The value of x as a NumPy array, or `None` while tracing."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    return lax.scan(advance, carry, samples, reverse=reverse)


def with_gradient(forward, backward):
    """A function of tensors with its own gradient."""
    function = jax.custom_vjp(lambda *tensors: forward(*tensors)[0])
    function.defvjp(forward, lambda residuals, cotangents: tuple(backward(residuals, cotangents)))
    return function


def project(x, matrix):
    """The product of rows `(batch, ..., features)` and a matrix.

    On a CPU the gradient of the matrix is summed row by row of the batch: XLA would transpose the
    larger side as a whole, and compute what it is made of once more for it.
    """
    return _project(x, matrix) if runs_in_blocks() and x.ndim > 2 else matmul(x, matrix)


dense = project


@jax.custom_jvp
def _project(x, matrix):
    return matmul(x, matrix)


def _moved_by_matrix(change, y, x, matrix):
    """What a change of the matrix adds: from a copy for each row, whose gradients are summed."""
    rows = jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]))
    each = jnp.broadcast_to(change, (x.shape[0], *change.shape))
    return jnp.reshape(einsum("blm,bmn->bln", rows, each), y.shape)


_project.defjvps(lambda change, y, x, matrix: matmul(change, matrix), _moved_by_matrix)


def blocks_side_by_side(count, size):
    """Blocks to read side by side: one after another is faster on a CPU."""
    return 1 if runs_in_blocks() else count or 1


def runs_in_blocks():
    """Whether blocks that fit the caches of a CPU are faster than all features at once."""
    return jax.default_backend() == "cpu"


loops_over_chunks = runs_in_blocks


def scan_states(dA, inputs, initial, reverse):
    """The states of `ops.scan` without their gradient.

    On an accelerator a tree; on a CPU a loop in place, for a transition that does not change.
    """
    if not isinstance(inputs.shape[-2], int):
        return None
    if not runs_in_blocks():
        return jax_tree.states_after(dA, inputs, initial, reverse)
    if dA.shape[-2] != 1 or not loops_allowed():
        return None
    return xla.scan_one_by_one(dA, inputs, initial, reverse)


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan` by loops.

    `None` for changing transitions, short sequences and accelerators, which have `scan_states`.
    """
    steps = inputs.shape[-2]
    if not runs_in_blocks():
        return None
    if dA.shape[-2] != 1 or steps is None or steps < SHORTEST_IN_BLOCKS:
        return None

    def evaluate(dA, inputs, initial):
        states, stored_states = xla.scan_in_blocks(dA, inputs, initial, reverse)
        return states, (dA, stored_states, initial)

    def gradient(residuals, upstream):
        return xla.scan_gradients(*residuals, upstream, reverse)

    return with_gradient(evaluate, gradient)(dA, inputs, initial)


def writes_in_place(x):
    """Whether loops over the steps of a sequence write in place, and pay."""
    return runs_in_blocks() and isinstance(x.shape[1], int)


def recomputed(forward, backward, portable):
    """A function of tensors whose gradient computes anew what it needs."""

    def keeping(*tensors):
        outputs, kept = forward(*tensors)
        return outputs, (tensors, kept)

    return with_gradient(keeping, lambda residuals, upstream: backward(*residuals, upstream))


def fused_selective(x, dt, A, B, C, D, initial, portable, projection=()):
    """`ops.selective_scan` or `ops.projected_scan` by GPU kernels, or in place on a CPU."""
    tensors = x, dt, A, B, C, D, initial, portable, projection
    outputs = selective_by_kernels(*tensors)
    return in_place_selective.fused_selective(*tensors) if outputs is None else outputs


def fused_dual(x, dt, A, B, C, initial, chunk_size, portable):
    """`ops.ssd` with a gradient of its own, on a CPU and for known sizes."""
    mixed = any(z is not None and z.dtype != x.dtype for z in (dt, A, B, C, initial))
    unknown = not all(isinstance(size, int) for size in x.shape[:2])
    if mixed or unknown or not (runs_in_blocks() and loops_allowed()):
        return None
    return dual_outputs(x, dt, A, B, C, initial, chunk_size)


def exports_erf():
    """Older readers of JAX's programs do not know it."""
    return False


def export_arguments(format, signature, length_axis):
    """For a SavedModel one name for each size that is not known."""
    if format != "tf_saved_model":
        return {}
    names = {0: "batch", length_axis: "length"}

    def written(spec):
        names_of_axes = [names.get(i, f"size_{i}") for i in range(len(spec.shape))]
        sizes = [m if n is None else str(n) for m, n in zip(names_of_axes, spec.shape, strict=True)]
        return f"({', '.join(sizes)})"

    shapes = keras.tree.map_structure(written, signature)
    return {"jax2tf_kwargs": {"polymorphic_shapes": [shapes]}}


def is_stateless():
    """Whether programs are functions of their arguments alone."""
    return True


def assign_part(variable, part, start, axis):
    """In place, as far as the device lets a program write into its argument."""
    variable.assign(_updated(variable.value, part, start, axis))


@functools.partial(jax.jit, donate_argnums=0, static_argnames="axis")
def _updated(value, part, start, axis):
    return lax.dynamic_update_slice_in_dim(value, part.astype(value.dtype), start, axis)
