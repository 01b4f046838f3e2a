"""TensorFlow forms of the primitives that differ between backends."""

import tensorflow as tf

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 16  # XLA takes minutes over long unrolled loops


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32."""
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    if operands[0].dtype == tf.float32 and tf32 and tf.config.list_logical_devices("GPU"):
        doubles = (tf.cast(v, tf.float64) for v in operands)
        return tf.cast(tf.einsum(equation, *doubles), tf.float32)
    return tf.einsum(equation, *operands)


def concrete(x):
    """The value of x as a NumPy array, or `None` in a graph."""
    x = tf.convert_to_tensor(x)
    return x.numpy() if hasattr(x, "numpy") and tf.executing_eagerly() else None


def sequential(advance, carry, samples):
    """Runs `advance(carry, sample) -> (carry, output)`, the output real or `None`, over axis 0."""
    first = tf.nest.flatten(samples)[0]
    count = tf.shape(first)[0]
    outputs = tf.TensorArray(first.dtype.real_dtype, size=count)
    kept = []

    def body(t, carry, outputs):
        sample = tf.nest.map_structure(lambda x: x[t], samples)
        carry, output = advance(carry, sample)
        kept.append(output is not None)
        return t + 1, carry, outputs.write(t, output) if output is not None else outputs

    _, carry, outputs = tf.while_loop(
        lambda t, *_: t < count, body, (0, carry, outputs), maximum_iterations=count
    )
    return carry, outputs.stack() if kept[0] else None


def written_out(advance, state, steps):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, loop unrolled."""
    states = []
    for t in range(steps):
        state = advance(state, t)
        states.append(state)
    return tf.stack(states, axis=-2)
