import keras
from keras import ops

from keras_ssm.checks import check_flags, check_number
from keras_ssm.layers.augmentation import Augmentation


@keras.saving.register_keras_serializable(package="keras_ssm")
class RandomNoise(Augmentation):
    """Adds Gaussian noise to the valid samples, in training only.

    The level of each row is drawn between zero and `stddev`.

    Args:
        stddev: float. Largest standard deviation of the noise. Defaults to `0.1`.
        relative: bool. Whether `stddev` is a share of the root mean square of the row's valid
            samples, or else in the units of x. Defaults to `True`.
        seed: int or `None`. Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.
        training: bool. Whether anything changes. Defaults to `False`.

    Returns:
        Tensor like x.

    Raises:
        ValueError: for a negative `stddev`.

    Example:
        ```python
        y = keras_ssm.layers.RandomNoise(0.1)(np.ones((4, 10, 1), "float32"), training=True)
        ```
    """

    def __init__(
        self, stddev: float = 0.1, relative: bool = True, seed: int | None = None, **kwargs
    ):
        super().__init__(seed=seed, **kwargs)
        check_number("stddev", stddev, low=0)
        check_flags(relative=relative)
        self.stddev = stddev
        self.relative = relative

    def augment(self, x, mask):
        level = self.uniform(x, 0.0, self.stddev)
        if self.relative:
            count = ops.sum(ops.cast(mask, x.dtype), axis=1)[:, None, None] * x.shape[-1]
            square = ops.sum(x * x, axis=(1, 2), keepdims=True)
            level = level * ops.sqrt(square / ops.maximum(count, 1))
        noise = keras.random.normal(ops.shape(x), dtype=x.dtype, seed=self.seed_generator)
        return x + level * noise

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev, "relative": self.relative}
