"""TensorFlow forms of the primitives that differ between backends."""

import tensorflow as tf


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


def diagonal_scan(dA, inputs, initial, reverse=False):
    """`ops.scan.forward` as a `tf.while_loop`, for a number of chunks known only at run time.

    Returns `None` where the number is static: the portable two-level form is faster there.
    """
    if inputs.shape[-2] is not None:
        return None
    modes = dA.shape[-1] // 2
    re, im = dA[..., :modes], dA[..., modes:]
    rank = len(inputs.shape)
    steps = tf.transpose(inputs, [rank - 2, *range(rank - 2), rank - 1])
    if reverse:
        steps = tf.reverse(steps, [0])

    def advance(state, s):
        x, y = state[..., :modes], state[..., modes:]
        state = tf.concat([re * x - im * y, re * y + im * x], axis=-1) + s
        return state, state

    _, states = sequential(advance, initial, steps)
    if reverse:
        states = tf.reverse(states, [0])
    return tf.transpose(states, [*range(1, rank - 1), 0, rank - 1])


def sequential(advance, carry, samples):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis; real outputs."""
    count = tf.shape(samples)[0]
    outputs = tf.TensorArray(samples.dtype.real_dtype, size=count)

    def body(t, carry, outputs):
        carry, output = advance(carry, samples[t])
        return t + 1, carry, outputs.write(t, output)

    _, carry, outputs = tf.while_loop(
        lambda t, *_: t < count, body, (0, carry, outputs), maximum_iterations=count
    )
    return carry, outputs.stack()
