"""Layers of Keras that compute with all the digits of their dtype.

Those of Keras multiply in TF32 on a GPU under JAX and TensorFlow, and compute float64 in float32.
Names of classes and weights are the same, on which files rest.
"""

import keras
from keras import ops

from keras_ssm.layers.initial_values import initialised
from keras_ssm.ops import backend

EXACT = ("float32", "float64")


@keras.saving.register_keras_serializable(package="keras_ssm")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` with `ops.backend.dense`."""

    def build(self, input_shape):
        with initialised(self, "kernel_initializer"):
            super().build(input_shape)

    def call(self, inputs, training=None):
        if self.compute_dtype not in EXACT:
            return super().call(inputs, training=training)
        # A gradient that nobody asks for costs nothing in a plain product.
        learns = getattr(self.kernel, "trainable", True)
        multiply = backend.dense if learns else backend.matmul
        y = multiply(ops.convert_to_tensor(inputs), ops.convert_to_tensor(self.kernel))
        y = y if self.bias is None else y + ops.convert_to_tensor(self.bias)
        return y if self.activation is None else self.activation(y)

    def quantize(self, mode=None, type_check=True, config=None):
        return super().quantize(mode, type_check=False, config=config)


@keras.saving.register_keras_serializable(package="keras_ssm")
class Embedding(keras.layers.ReversibleEmbedding):
    """`keras.layers.ReversibleEmbedding` with `ops.backend.matmul`, which passes masks on."""

    def __init__(self, input_dim: int, output_dim: int, **kwargs):
        super().__init__(input_dim, output_dim, **kwargs)
        self.supports_masking = True

    def build(self, input_shape=None):
        with initialised(self, "embeddings_initializer"):
            super().build(input_shape)

    def call(self, inputs, reverse=False):
        if not reverse:
            return super().call(inputs)
        inputs = ops.cast(inputs, self.compute_dtype)
        table = ops.cast(self.embeddings, self.compute_dtype)
        if self.compute_dtype not in EXACT:
            return ops.matmul(inputs, ops.transpose(table))
        return backend.matmul(inputs, ops.transpose(table))

    def compute_mask(self, inputs, mask=None):
        return mask

    def quantize(self, mode=None, type_check=True, config=None):
        return super().quantize(mode, type_check=False, config=config)


class OnePassNorm:
    """A norm over the last axis that a backend may compute in one pass, with a sum before it.

    A subclass has two methods: `norm_weights` gives gamma and beta, or `None` for the second, and
    `norm_of` is the norm of a float32 x by these.
    """

    def of_sum(self, x, y=None):
        """The norm of x + y, or of x, if the backend has a kernel for that, else `None`."""
        found = backend.fused_norm(
            x, y, self.norm_weights, self.epsilon, self.compute_dtype, self._portable
        )
        return found if found is None or y is None else found[1]

    def _portable(self, x, *weights):
        return ops.cast(self.norm_of(ops.cast(x, "float32"), *weights), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_ssm")
class LayerNormalization(OnePassNorm, keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis."""

    def norm_weights(self):
        return ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")

    def norm_of(self, x, gamma, beta):
        y = backend.fused_layer_norm(x, gamma, beta, self.epsilon)
        return _layer_norm(x, gamma, beta, self.epsilon) if y is None else y

    def call(self, inputs):
        if self.compute_dtype == "float64":
            x = ops.convert_to_tensor(inputs)
            y = _of_unit_square(x - backend.mean(x, axis=-1, keepdims=True), self.epsilon)
            return y * ops.convert_to_tensor(self.gamma) + ops.convert_to_tensor(self.beta)
        x = ops.convert_to_tensor(inputs)
        y = self.of_sum(x)
        return self._portable(x, *self.norm_weights()) if y is None else y


@keras.saving.register_keras_serializable(package="keras_ssm")
class RMSNormalization(OnePassNorm, keras.layers.RMSNormalization):
    """`keras.layers.RMSNormalization` over the last axis, in float32 or float64 inside.

    The input is read as it is, so that a float32 residual stream is not rounded before its norm.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def norm_weights(self):
        return ops.cast(self.scale, "float32"), None

    def norm_of(self, x, scale, none=None):
        return rms(x, self.epsilon) * scale

    def call(self, x):
        if self.compute_dtype == "float64":
            return self.norm_of(ops.cast(x, "float64"), ops.cast(self.scale, "float64"))
        y = self.of_sum(x)
        return self._portable(x, *self.norm_weights()) if y is None else y


def is_product(dense):
    """Whether a `Dense` without bias and activation does nothing but multiply by its `kernel`.

    It does more after `quantize`, and while somebody listens to its inputs in place of its `call`.
    """
    return dense.quantization_mode is None and "call" not in vars(dense)


# Up to here squares, and the power of three in a gradient, stay within float32.
LARGEST_MEAN_SQUARE = 1e24


def _layer_norm(x, gamma, beta, epsilon):
    scale = scale_of(x)
    y = x / scale
    # Equal numbers would give 0 / 0 without anything to add. This is far below their rounding.
    epsilon = ops.maximum(epsilon / scale / scale, 1e-24)
    y = _of_unit_square(y - backend.mean(y, axis=-1, keepdims=True), epsilon)
    return y * gamma + beta


def rms(x, epsilon):
    """x over the root of its mean square, however large x is: 1e20 squared is no float32."""
    square = backend.mean(x * x, axis=-1, keepdims=True)
    if backend.all_true(square < LARGEST_MEAN_SQUARE):
        return x * ops.rsqrt(square + epsilon)
    scale = scale_of(x)
    return _of_unit_square(x / scale, epsilon / scale / scale)


def _of_unit_square(x, epsilon):
    return x * ops.rsqrt(backend.mean(x * x, axis=-1, keepdims=True) + epsilon)


def scale_of(x):
    """The largest entry of the last axis, or 1: what x is divided by before it is squared.

    The norm of the quotient has the same gradient whatever the scale is, so that it passes none.
    """
    largest = ops.maximum(backend.largest(ops.abs(x), axis=-1, keepdims=True), 1.0)
    return ops.stop_gradient(ops.cast(largest, x.dtype))  # Keras may have rounded it
