import keras
from keras import ops

from keras_ssm.checks import check_number, check_positive
from keras_ssm.layers.augmentation import Augmentation


@keras.saving.register_keras_serializable(package="keras_ssm")
class RandomTimeMask(Augmentation):
    """Sets stretches of each row to zero, in training only.

    The samples stay valid: a model learns to do without them. Their number is drawn between zero
    and `max_share` of the row's valid samples, and their place among these.

    Args:
        max_share: float. Longest stretch, as a share of a row. Defaults to `0.1`.
        num_masks: int. Stretches a row. Defaults to `1`.
        seed: int or `None`. Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.
        training: bool. Whether anything changes. Defaults to `False`.

    Returns:
        Tensor like x.

    Raises:
        ValueError: for a share outside of 0 to 1, or a number below 1.

    Example:
        ```python
        y = keras_ssm.layers.RandomTimeMask(0.3)(np.ones((4, 10, 1), "float32"), training=True)
        ```

    Reference:
        [SpecAugment](https://arxiv.org/abs/1904.08779), section 2.
    """

    def __init__(
        self, max_share: float = 0.1, num_masks: int = 1, seed: int | None = None, **kwargs
    ):
        super().__init__(seed=seed, **kwargs)
        check_number("max_share", max_share, low=0, high=1)
        self.max_share = max_share
        (self.num_masks,) = check_positive(num_masks=num_masks)

    def augment(self, x, mask):
        places = ops.cast(ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1, x.dtype)[..., None]
        count = ops.cast(ops.sum(ops.cast(mask, "int32"), axis=1), x.dtype)[:, None, None]
        for _ in range(self.num_masks):
            length = ops.floor(self.uniform(x) * (self.max_share * count + 1))
            length = ops.minimum(length, ops.floor(self.max_share * count))
            start = ops.floor(self.uniform(x) * (count - length + 1))
            inside = ops.logical_and(places >= start, places < start + length)
            x = ops.where(inside, ops.zeros_like(x), x)
        return x

    def get_config(self):
        return {**super().get_config(), "max_share": self.max_share, "num_masks": self.num_masks}
