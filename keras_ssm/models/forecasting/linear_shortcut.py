import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_positive
from keras_ssm.ops import backend
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class LinearShortcut(Attributes, keras.layers.Layer):
    """A forecast that is linear in the last values: `last + (window - last) kernel`.

    One kernel serves all variables. At first it is zero, which repeats the last value.

    Args:
        steps: int. Steps of a forecast.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        window: float tensor `(..., lookback)`. The last values, the latest at the end.

    Returns:
        Tensor `(..., steps)`, float32 or float64.

    Raises:
        ValueError: for `steps` below 1.

    Example:
        ```python
        layer = LinearShortcut(steps=3)
        y = layer(np.arange(8.0)[None])  # 7, 7, 7
        ```

    Reference:
        [NLinear](https://arxiv.org/abs/2205.13504), section 4.1.
    """

    def __init__(self, steps: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        (self.steps,) = check_positive(steps=steps)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.steps),
            dtype=self.wide_dtype,
            initializer="zeros",
            autocast=False,
        )
        self.built = True

    @property
    def wide_dtype(self) -> str:
        """float32, or float64 under a float64 policy: values keep their digits."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(self, window: Tensor) -> Tensor:
        window = ops.cast(ops.convert_to_tensor(window), self.wide_dtype)
        last = window[..., -1:]
        return last + backend.matmul(window - last, ops.convert_to_tensor(self.kernel))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.steps)

    def compute_output_spec(self, window):
        return keras.KerasTensor(self.compute_output_shape(window.shape), dtype=self.wide_dtype)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}
