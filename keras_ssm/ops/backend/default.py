"""Everything that may differ between backends, as it is where a backend has no form of its own.

`keras_ssm.ops.backend` has these names. Each backend overrides some of them under the same names
and arguments. A fast form returns `None` where it does not apply, and the portable operations of
`keras_ssm.ops` take its place.
"""

import contextlib

import numpy as np
from keras import ops

from keras_ssm.ops.backend.default_exports import (
    export_arguments,
    exports_erf,
    exports_loops,
    exports_unknown_lengths,
    keras_writes_onnx,
    takes_erfc,
    writes_saved_models,
)
from keras_ssm.ops.backend.default_fused import (
    fused_bank,
    fused_chunks,
    fused_conv_silu,
    fused_dplr,
    fused_dual,
    fused_layer_norm,
    fused_mimo,
    fused_norm,
    fused_scan,
    fused_selective,
    fused_zoh,
    reads_short,
    recomputed,
    scan_states,
    toeplitz,
    writes_in_place,
)
from keras_ssm.ops.backend.default_gates import gated, glu, sigmoid_gated
from keras_ssm.ops.backend.default_programs import (
    program,
    step_program,
    traced,
    were_given_away,
)

__all__ = [
    "LONGEST_UNROLLED",
    "all_true",
    "arctan2",
    "argsort",
    "assign_part",
    "blocks_side_by_side",
    "circular",
    "compiled",
    "compiles_gradients",
    "complex_of",
    "contiguous",
    "cos",
    "cumsum",
    "dense",
    "device_name",
    "einsum",
    "exact_einsum",
    "export_arguments",
    "exports_erf",
    "exports_loops",
    "exports_unknown_lengths",
    "fused_bank",
    "fused_chunks",
    "fused_conv_silu",
    "fused_dplr",
    "fused_dual",
    "fused_layer_norm",
    "fused_mimo",
    "fused_norm",
    "fused_scan",
    "fused_selective",
    "fused_zoh",
    "gated",
    "glu",
    "is_stateless",
    "keras_writes_onnx",
    "largest",
    "loops_over_chunks",
    "loops_over_unknown_steps",
    "map_blocks",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "pad",
    "program",
    "project",
    "reads_short",
    "recomputed",
    "runs_in_blocks",
    "scan_states",
    "sequential",
    "sigmoid_gated",
    "sin",
    "split",
    "static_value",
    "step_program",
    "sum_of_products",
    "take_steps",
    "takes_erfc",
    "tanh",
    "toeplitz",
    "traced",
    "track_weights",
    "transforms_unknown_lengths",
    "transposed",
    "unrolled",
    "uses_xla",
    "were_given_away",
    "with_gradient",
    "without_gradients",
    "writes_in_place",
    "writes_saved_models",
]

# Functions of numbers: those of keras.ops, in the dtype of their arguments.

arctan2 = ops.arctan2
cos = ops.cos
cumsum = ops.cumsum
maximum = ops.maximum  # the second argument may be a number
largest = ops.max
mean = ops.mean
minimum = ops.minimum
pad = ops.pad
sin = ops.sin
tanh = ops.tanh


def complex_of(re, im):
    """The complex tensor re + i im."""
    raise NotImplementedError


# Products.


def sum_of_products(a, b, axis):
    """The sum of a * b, of one shape, over an axis or a tuple of axes."""
    return ops.sum(a * b, axis=axis)


def exact_einsum(equation, *operands):
    """Einsum in full float32, whatever the device's fast mode is."""
    raise NotImplementedError


def einsum(equation, *operands):
    """Einsum of large tensors: full float32, unless the user chose a fast mode by name."""
    raise NotImplementedError


def matmul(a, b):
    """The matrix product of large tensors, as exact as `einsum`."""
    raise NotImplementedError


def project(x, matrix):
    """The product of rows and a matrix, with a gradient that suits the backend."""
    raise NotImplementedError


def dense(x, matrix):
    """The product of inputs `(..., features)` and trained weights, as exact as `matmul`."""
    raise NotImplementedError


def contiguous(x):
    """x laid out so that a batched matmul need not copy it; most backends copy by themselves."""
    return x


def transposed(x):
    """The transpose of a matrix, laid out in the order of its axes, as its gradient is."""
    return ops.transpose(x)


def split(x, sizes):
    """The parts of these sizes, along the last axis."""
    return ops.split(x, np.cumsum(sizes[:-1]).tolist(), axis=-1)


# Functions and loops.


def take_steps(x, places):
    """The samples of `(batch, length, features)` at `(batch, count)` places, at least 0."""
    return ops.take_along_axis(x, ops.expand_dims(places, -1), axis=1)


def argsort(x):
    """The places of numbers that differ, along the last axis, from the least to the largest."""
    return ops.argsort(x, axis=-1)


def assign_part(variable, part, start, axis):
    """Gives a variable the numbers of an array from `start` on along an axis, and no copy."""
    raise NotImplementedError


def device_name():
    """The first GPU as its driver names it, or `"cpu"` where there is none."""
    raise NotImplementedError


def static_value(x):
    """The value of x as a NumPy array, or `None` where a graph is traced."""
    raise NotImplementedError


def all_true(condition):
    """Whether a mask, or another condition, is known to be True everywhere.

    No compiler knows: it makes one loop of a mask and what comes next. Op by op it costs passes.
    """
    return False


def with_gradient(forward, backward):
    """A function of tensors, which returns outputs, with its own gradient.

    Args:
        forward: maps the tensors to `(outputs, residuals)`.
        backward: maps `(residuals, cotangents)` to the gradient of each tensor.
    """
    raise NotImplementedError


def compiles_gradients():
    """Whether a compiler sees a gradient as a whole, so that a rule of our own pays.

    Op by op a tape is as fast, which keeps what it met.
    """
    return True


def without_gradients():
    """A context in which nothing is kept for a gradient, where a backend keeps it by itself."""
    return contextlib.nullcontext()


def compiled(function, steps):
    """A function of a sequence of so many steps, compiled by XLA where nobody else would do it."""
    return function


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`.

    Carry, samples and output are tensors or trees of tensors, or the output is `None`.
    """
    raise NotImplementedError


def unrolled(advance, state, steps, reverse=False):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, without a loop."""
    states = []
    for t in reversed(range(steps)) if reverse else range(steps):
        state = advance(state, t)
        states.append(state)
    return ops.stack(states[::-1] if reverse else states, axis=-2)


def blocks_side_by_side(count, size):
    """How many blocks of a recurrence to read side by side, each with a state of so many numbers.

    There are `count` blocks, or an unknown number (`None`), which are read one after another.
    """
    return count or 1


# Steps of a recurrence up to which `unrolled` is better than `sequential`.
LONGEST_UNROLLED = 0


# Fast forms of the operations in `keras_ssm.ops`, or `None`.


def circular(u, kernel, size):
    """Convolves `(batch, features, length)` with `(channels, features, steps)` on a circle.

    Returns `(batch, channels, features, length)`.
    """
    raise NotImplementedError


def runs_in_blocks():
    """Whether blocks of features that fit a CPU's caches are faster than all features at once."""
    return False


def loops_over_chunks():
    """Whether a loop over chunks that a CPU's caches hold is faster than all chunks at once."""
    return False


def map_blocks(function, tensors, fixed, size, **static):
    """Applies a function to blocks of features, one after another, where `runs_in_blocks`.

    Args:
        function: maps slices of the nests `tensors` and `fixed`, of `size` rows each, and the
            `static` arguments to a tuple of tensors of as many rows.
        tensors: nest of tensors with as many rows.
        fixed: nest of tensors with as many rows, which have no gradient.
        size: int. A divisor of the number of rows.
        **static: hashable arguments of the function.

    Returns:
        Tuple of tensors: the outputs, written one below the other.
    """
    raise NotImplementedError


# Questions that the rest of the package asks a backend.


def uses_xla():
    """Whether programs are compiled by XLA, which fuses operations and dislikes odd strides."""
    return True


def loops_over_unknown_steps():
    """Whether `sequential` takes a number of steps that a graph does not know."""
    return True


def transforms_unknown_lengths():
    """Whether Fourier transforms take a length that a graph does not know."""
    return False


def is_stateless():
    """Whether programs are functions of their arguments alone.

    Weights go into them by a `keras.StatelessScope`, and the trainer, while it runs, gives the
    buffers of the weights away and keeps others in a state of its own.
    """
    return False


def track_weights(model):
    """Shows the backend the weights of a model, after some came or went."""
