import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_positive


@keras.saving.register_keras_serializable(package="keras_ssm")
class MovingAverage(keras.layers.Layer):
    """The mean of the `width` steps around each one; beyond an end stands its value.

    Args:
        width: int. Odd number of steps. Defaults to `25`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch, length)`.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: for a width below 1, or an even one.

    Example:
        ```python
        y = MovingAverage(3)(np.array([[0.0, 3.0, 6.0]], "float32"))  # 1, 3, 5
        ```

    Reference:
        [DLinear](https://arxiv.org/abs/2205.13504), section 4.1.
    """

    def __init__(self, width: int = 25, **kwargs):
        super().__init__(**kwargs)
        (self.width,) = check_positive(width=width)
        if width % 2 == 0:
            raise ValueError(f"`width` must be odd. Received: width={width}")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        length = x.shape[-1]
        place = np.arange(length)[:, None] + np.arange(self.width) - self.width // 2
        means = np.zeros((length, length), "float32")
        rows = np.repeat(np.arange(length), self.width)
        np.add.at(means, (place.clip(0, length - 1).ravel(), rows), 1.0 / self.width)
        return ops.matmul(x, ops.cast(means, x.dtype))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}
