import keras
import numpy as np
from keras import ops

from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class QuantileLoss(keras.losses.Loss):
    """The pinball loss of several quantiles, which is least at the quantiles of the target.

    Args:
        quantiles: tuple of float between 0 and 1, one for each output.
        reduction, name: as in `keras.losses.Loss`.

    Call arguments:
        y_true: float tensor `(..., 1)`.
        y_pred: float tensor `(..., quantiles)`.

    Returns:
        The mean over the quantiles of `max(q d, (q - 1) d)`, `d = y_true - y_pred`, reduced.

    Raises:
        ValueError: for quantiles outside (0, 1).

    Example:
        ```python
        loss = QuantileLoss((0.1, 0.5, 0.9))
        loss(np.ones((4, 1)), np.zeros((4, 3)))  # 0.5
        ```

    Reference:
        [Regression quantiles](https://www.jstor.org/stable/1913643), equation 2.1.
    """

    def __init__(
        self,
        quantiles: tuple[float, ...],
        reduction: str = "sum_over_batch_size",
        name: str = "quantile_loss",
        dtype: str | None = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        values = np.asarray(quantiles, "float64")
        if values.ndim != 1 or not values.size or not ((values > 0) & (values < 1)).all():
            raise ValueError(
                f"`quantiles` must be numbers between 0 and 1. Received: quantiles={quantiles!r}"
            )
        self.quantiles = tuple(values.tolist())

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred = ops.convert_to_tensor(y_pred)
        difference = ops.cast(y_true, y_pred.dtype) - y_pred
        q = ops.convert_to_tensor(np.array(self.quantiles), y_pred.dtype)
        return ops.mean(ops.maximum(q * difference, (q - 1.0) * difference), axis=-1)

    def get_config(self):
        config = super().get_config()
        return {**config, "quantiles": list(self.quantiles)}
