import keras
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class StepsAt(keras.layers.Layer):
    """The steps of a sequence after so many of them, and what was there before the first.

    Call arguments:
        x: tensor `(batch, length, features)`.
        counts: integers `(batch, places)` from 0 to `length`; 0 is before the first step.
        before: tensor `(batch, features)` or `None`, for zeros.

    Returns:
        Tensor `(batch, places, features)`.

    Example:
        ```python
        y = StepsAt()(np.ones((2, 5, 3), "float32"), np.array([[0, 5]] * 2))  # zeros, then ones
        ```
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, x: Tensor, counts: Tensor, before: Tensor | None = None) -> Tensor:
        before = ops.zeros_like(x[:, 0]) if before is None else ops.cast(before, x.dtype)
        x = ops.concatenate([before[:, None], x], axis=1)
        return backend.take_steps(x, ops.cast(counts, "int32"))

    def compute_output_spec(self, x, counts, before=None):
        return keras.KerasTensor((*counts.shape, x.shape[-1]), dtype=x.dtype)

    def compute_mask(self, inputs, previous_mask):
        return None

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package="keras_ssm")
class ForecastSum(keras.layers.Layer):
    """The linear forecast, and on it that of the state in units of the running deviation.

    Several outputs a step are quantiles: sorted, so that none crosses another.

    Call arguments:
        linear: tensor `(batch, origins, steps)`.
        added: tensor `(batch, origins, steps, outputs)`.
        deviation: tensor `(batch, origins, 1)`, or `None` for 1.

    Returns:
        Tensor `(batch, origins, steps, outputs)`, in the dtype of the linear forecast.

    Example:
        ```python
        linear, added = np.zeros((1, 1, 2)), np.ones((1, 1, 2, 3))
        y = ForecastSum()(linear, added, np.full((1, 1, 1), 5.0))  # all 5
        ```
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, linear: Tensor, added: Tensor, deviation: Tensor | None = None) -> Tensor:
        added = ops.cast(added, linear.dtype)
        if deviation is not None:
            added = added * ops.cast(deviation, linear.dtype)[..., None]
        y = linear[..., None] + added
        return ops.sort(y, axis=-1) if y.shape[-1] > 1 else y

    def compute_output_spec(self, linear, added, deviation=None):
        return keras.KerasTensor(tuple(added.shape), dtype=linear.dtype)

    def get_config(self):
        return super().get_config()
