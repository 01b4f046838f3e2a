import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.layers.exact_layers import scale_of
from keras_ssm.ops import backend
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class ScalarNormalization(Attributes, keras.layers.Layer):
    """Normalises the features of each step, with one scale and one shift for all of them.

    y = scale / std * (x - mean + shift), over the features. The standard deviation is the biased
    one, with nothing added to it. Where it is 0, as in padding, it counts as 1. Models that were
    trained in the transposed layout of the published code use it. For new ones layer normalization
    is the better choice.

    Weights: `gamma` (scale) and `beta` (shift), scalars of shape `(1,)`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(..., features)`.

    Returns:
        Tensor of the same shape.

    Example:
        ```python
        y = keras_ssm.layers.ScalarNormalization()(np.random.normal(size=(2, 10, 8)))
        ```

    Reference:
        [Layer Normalization](https://arxiv.org/abs/1607.06450), equation 3, with scalars.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=(1,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(1,), initializer="zeros")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        # Sums of squares leave the range of half precision.
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        y = ops.cast(ops.convert_to_tensor(x), dtype)
        scale = scale_of(y)  # squares of 1e20 are no float32
        y = y / scale
        y = y - backend.mean(y, axis=-1, keepdims=True)
        variance = backend.mean(y * y, axis=-1, keepdims=True)
        # Padded steps are constant; 0 / 0 there would reach every gradient.
        std = ops.sqrt(ops.where(variance > 0, variance, ops.ones_like(variance)))
        std = ops.where(variance > 0, std, 1.0 / scale)
        y = ops.cast(self.gamma, dtype) * (y + ops.cast(self.beta, dtype) / scale) / std
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
