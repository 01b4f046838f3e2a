import math

import keras
from keras import ops

from keras_ssm.checks import check_number
from keras_ssm.layers.augmentation import Augmentation


@keras.saving.register_keras_serializable(package="keras_ssm")
class RandomGain(Augmentation):
    """Multiplies each row by a factor of its own, in training only.

    Args:
        low, high: float. Ends of the factors, between which their logarithm is uniform. Default to
            `0.5` and `2.0`.
        seed: int or `None`. Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.
        training: bool. Whether anything changes. Defaults to `False`.

    Returns:
        Tensor like x.

    Raises:
        ValueError: unless `0 < low <= high`.

    Example:
        ```python
        y = keras_ssm.layers.RandomGain(0.5, 2.0)(np.ones((4, 10, 1), "float32"), training=True)
        ```
    """

    def __init__(self, low: float = 0.5, high: float = 2.0, seed: int | None = None, **kwargs):
        super().__init__(seed=seed, **kwargs)
        check_number("low", low, low=1e-6)
        check_number("high", high, low=low)
        self.low = low
        self.high = high

    def augment(self, x, mask):
        return x * ops.exp(self.uniform(x, math.log(self.low), math.log(self.high)))

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}
