import keras
from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.augmentation import Augmentation
from keras_ssm.ops import backend


@keras.saving.register_keras_serializable(package="keras_ssm")
class RandomShift(Augmentation):
    """Moves each row in time by a number of samples of its own, in training only.

    What moves past either end of the valid samples is lost, and zeros come in at the other.

    Args:
        max_shift: int. Most samples that a row moves, forwards or backwards.
        seed: int or `None`. Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.
        training: bool. Whether anything changes. Defaults to `False`.

    Returns:
        Tensor like x.

    Raises:
        ValueError: for a `max_shift` below 1.

    Example:
        ```python
        y = keras_ssm.layers.RandomShift(3)(np.ones((4, 10, 1), "float32"), training=True)
        ```
    """

    def __init__(self, max_shift: int, seed: int | None = None, **kwargs):
        super().__init__(seed=seed, **kwargs)
        (self.max_shift,) = check_positive(max_shift=max_shift)

    def augment(self, x, mask):
        max_shift = self.max_shift
        draws = ops.floor(self.uniform(x)[..., 0] * (2 * max_shift + 1))
        draws = ops.minimum(ops.cast(draws, "int32"), 2 * max_shift)  # rounding reaches the end
        edges = [[0, 0], [max_shift, max_shift], [0, 0]]
        places = ops.arange(0, x.shape[1] or ops.shape(x)[1], dtype="int32")
        return backend.take_steps(ops.pad(x, edges), draws + ops.expand_dims(places, 0))

    def get_config(self):
        return {**super().get_config(), "max_shift": self.max_shift}
