"""TensorFlow forms of the primitives that differ between backends."""

import functools

import tensorflow as tf

from keras_ssm.ops.backend import xla
from keras_ssm.ops.backend.in_place.gate import gated
from keras_ssm.ops.backend.in_place.selective import fused_selective
from keras_ssm.ops.backend.in_place.short_conv import fused_conv_silu
from keras_ssm.ops.backend.tensorflow.by_xla import (
    IN_XLA,
    SHORTEST_COMPILED,
    by_xla,
    compiled,
    packed,
    present,
    recomputed,
    unwatched,
)
from keras_ssm.ops.backend.tensorflow.fourier import circular
from keras_ssm.ops.backend.tensorflow.numbers import (
    complex_of,
    cos,
    einsum,
    largest,
    matmul,
    mean,
    sin,
    tanh,
)
from keras_ssm.ops.backend.tensorflow.programs import program, step_program
from keras_ssm.ops.exporting import is_exporting

__all__ = [
    "LONGEST_UNROLLED",
    "assign_part",
    "blocks_side_by_side",
    "circular",
    "compiled",
    "complex_of",
    "cos",
    "dense",
    "device_name",
    "einsum",
    "exact_einsum",
    "export_arguments",
    "fused_conv_silu",
    "fused_scan",
    "fused_selective",
    "gated",
    "largest",
    "map_blocks",
    "matmul",
    "mean",
    "program",
    "project",
    "recomputed",
    "runs_in_blocks",
    "scan_states",
    "sequential",
    "sin",
    "static_value",
    "step_program",
    "tanh",
    "transforms_unknown_lengths",
    "with_gradient",
    "writes_in_place",
]

exact_einsum = einsum  # TensorFlow chooses no fast mode by name

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 16  # XLA takes minutes over long unrolled loops

# Numbers that a step of a recurrence should have to be worth its call.
SIDE_BY_SIDE = 2**16


@functools.cache
def device_name():
    """The first GPU as its driver names it, or `"cpu"` where there is none."""
    cards = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(cards[0]) if cards else {}
    return details.get("device_name", "gpu") if cards else "cpu"


def static_value(x):
    """The value of x as a NumPy array, or `None` in a graph."""
    x = tf.convert_to_tensor(x)
    return x.numpy() if hasattr(x, "numpy") and tf.executing_eagerly() else None


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    at = lambda t: tf.nest.map_structure(lambda x: x[t], samples)
    count = tf.shape(tf.nest.flatten(samples)[0])[0]
    if tf.executing_eagerly():
        return _one_by_one(advance, carry, at, int(count), reverse)
    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, (carry, at(0)))
    # Traced once, for the outputs and for the loop: loops in loops would double it at each level.
    advance = tf.function(advance, autograph=False).get_concrete_function(*specs)
    _, kind = advance.structured_outputs
    kind = () if kind is None else kind
    arrays = [
        tf.TensorArray(spec.dtype, size=count, element_shape=spec.shape)
        for spec in tf.nest.flatten(kind)
    ]

    def body(i, carry, arrays):
        t = count - 1 - i if reverse else i
        carry, output = advance(*tf.nest.flatten((carry, at(t))))
        if arrays:
            output = tf.nest.flatten(output)
            arrays = [array.write(t, x) for array, x in zip(arrays, output, strict=True)]
        return i + 1, carry, arrays

    _, carry, arrays = tf.while_loop(
        lambda i, *_: i < count, body, (0, carry, arrays), maximum_iterations=count
    )
    outputs = [array.stack() for array in arrays]
    return carry, tf.nest.pack_sequence_as(kind, outputs) if arrays else None


def _one_by_one(advance, carry, at, count, reverse):
    outputs = []
    for t in reversed(range(count)) if reverse else range(count):
        carry, output = advance(carry, at(t))
        outputs.append(output)
    outputs = outputs[::-1] if reverse else outputs
    if outputs[0] is None:
        return carry, None
    return carry, tf.nest.map_structure(lambda *steps: tf.stack(steps), *outputs)


def with_gradient(forward, backward):
    """A function of tensors with its own gradient."""

    @tf.custom_gradient
    def function(*tensors):
        outputs, residuals = forward(*tensors)

        def gradient(*cotangents):
            single = cotangents[0] if len(cotangents) == 1 else cotangents
            return list(backward(residuals, single))

        return outputs, gradient

    return function


def project(x, matrix):
    """The product of rows and a matrix."""
    return matmul(x, matrix)


def dense(x, matrix):
    """The product of inputs and trained weights.

    The gradient of the weights comes before that of the inputs: inputs that nothing else needs are
    free when the second goes on. The executor, left to itself, often holds both.
    """
    if (x.shape.rank or 0) < 3 or x.dtype != matrix.dtype:
        return matmul(x, matrix)
    return _dense(x, tf.convert_to_tensor(matrix))  # a variable would be watched by name


@tf.custom_gradient
def _dense(x, matrix):
    def gradient(upstream):
        inputs, outputs = matrix.shape
        rows = tf.reshape(x, (-1, inputs))
        d_matrix = matmul(tf.transpose(rows), tf.reshape(upstream, (-1, outputs)))
        with tf.control_dependencies([d_matrix]):
            upstream = tf.identity(upstream)
        return matmul(upstream, tf.transpose(matrix)), d_matrix

    return matmul(x, matrix), gradient


def blocks_side_by_side(count, size):
    """Blocks to read side by side: as many as make an operation worth its call."""
    return min(count or 1, 2**60 if not runs_in_blocks() else max(1, SIDE_BY_SIDE // size))


def runs_in_blocks():
    """Whether blocks that fit the caches of a CPU are faster than all features at once."""
    return not tf.config.list_logical_devices("GPU")


def writes_in_place(x):
    """Whether programs of XLA may read `(batch, length, features)` some steps at a time."""
    long = x.shape[1] is not None and x.shape[1] >= SHORTEST_COMPILED
    return long and runs_in_blocks() and not is_exporting()


def map_blocks(function, tensors, fixed, size, **static):
    """The outputs of `function(slices, fixed slices, **static)`, written one below the other.

    XLA compiles it. The gradient computes each block anew, and has no gradient itself.
    """
    forward, backward = _compiled_blocks(function, size, tuple(sorted(static.items())))
    fixed = unwatched(fixed)

    @tf.custom_gradient
    def mapped(*watched):
        sources = packed(tensors, unwatched(watched))
        return forward(sources, fixed), lambda *upstream: backward(
            sources, fixed, unwatched(upstream)
        )

    return mapped(*present(tensors))


@functools.lru_cache
def _compiled_blocks(function, size, static):
    """One pair of compiled functions for each kind of block, whoever calls it."""
    static = dict(static)

    def in_turn(block_function, nests, count):
        tensors = present(nests)
        blocks = [tf.reshape(x, (-1, size, *_static_or_dynamic(x)[1:])) for x in tensors]
        results = tf.map_fn(
            lambda slices: block_function(*packed(nests, slices)),
            blocks,
            fn_output_signature=(tensors[0].dtype,) * count,
            parallel_iterations=1,
        )
        return tuple(tf.reshape(x, (-1, *_static_or_dynamic(x)[2:])) for x in results)

    @by_xla
    def forward(tensors, fixed):
        return in_turn(functools.partial(function, **static), (tensors, fixed), 2)

    @by_xla
    def backward(tensors, fixed, cotangents):
        def one(tensors, fixed, upstream):
            sources = present(tensors)
            with tf.GradientTape() as tape:
                tape.watch(sources)
                outputs = function(tensors, fixed, **static)
            zeros = tf.UnconnectedGradients.ZERO
            return tuple(tape.gradient(outputs, sources, upstream, unconnected_gradients=zeros))

        return in_turn(one, (tensors, fixed, cotangents), len(present(tensors)))

    return forward, backward


def _static_or_dynamic(x):
    sizes = tf.shape(x)
    return [sizes[i] if n is None else n for i, n in enumerate(x.shape)]


def scan_states(dA, inputs, initial, reverse):
    """The states of `ops.scan` in place inside a program of XLA, else `None`."""
    if not IN_XLA.get() or inputs.shape[-2] is None or dA.shape[-2] != 1:
        return None
    return xla.scan_one_by_one(dA, inputs, initial, reverse)


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan` by loops that XLA compiles, for long sequences and one transition.

    There are no gradients of its gradients.
    """
    steps = inputs.shape[-2]
    if dA.shape[-2] != 1 or steps is None or steps < SHORTEST_COMPILED:
        return None
    forward, backward = _compiled_scan(reverse)

    @tf.custom_gradient
    def states(*tensors):
        dA, inputs, initial = unwatched(tensors)
        states, stored_states = forward(dA, inputs, initial)
        return states, lambda upstream: backward(dA, stored_states, initial, unwatched(upstream))

    return states(dA, inputs, initial)


@functools.lru_cache
def _compiled_scan(reverse):
    return tuple(
        by_xla(functools.partial(function, reverse=reverse))
        for function in (xla.scan_in_blocks, xla.scan_gradients)
    )


def transforms_unknown_lengths():
    """Whether Fourier transforms take a length that a graph does not know."""
    return True


def export_arguments(format, signature, length_axis):
    """For LiteRT its own operations: no plain interpreter runs those of TensorFlow."""
    if format != "litert":
        return {}
    return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}


def assign_part(variable, part, start, axis):
    """In place: a slice of the variable itself would be read first, and the whole copied."""
    begin = [0] * len(variable.shape)
    end = [int(n) for n in variable.shape]
    begin[axis], end[axis] = start, start + part.shape[axis]
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.value.handle,
        begin=begin,
        end=end,
        strides=[1] * len(end),
        value=tf.cast(part, variable.value.dtype),
    )
