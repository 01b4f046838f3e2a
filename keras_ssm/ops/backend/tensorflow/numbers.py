"""Products without TF32 on TensorFlow, and functions in the dtype of their arguments."""

import tensorflow as tf

complex_of = tf.complex
cos = tf.cos
sin = tf.sin
tanh = tf.tanh


def matmul(a, b):
    """The matrix product in full float32."""
    return _full(tf.matmul, a, b)


def einsum(equation, *operands):
    """Einsum in full float32."""
    return _full(lambda *v: tf.einsum(equation, *v), *operands)


def _full(product, *operands):
    """A product that never drops to TF32.

    TensorFlow has one switch for the whole process. Where it allows TF32, which is its default,
    products on a GPU go through float64; with the switch off they are float32 throughout.
    """
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    if operands[0].dtype == tf.float32 and tf32 and tf.config.list_logical_devices("GPU"):
        return tf.cast(product(*(tf.cast(v, tf.float64) for v in operands)), tf.float32)
    return product(*operands)


def largest(x, axis, keepdims=False):
    """The largest entry along an axis."""
    return tf.reduce_max(x, axis=axis, keepdims=keepdims)


def mean(x, axis, keepdims=False):
    """The mean over an axis or a tuple of axes."""
    return tf.reduce_mean(x, axis=axis, keepdims=keepdims)
