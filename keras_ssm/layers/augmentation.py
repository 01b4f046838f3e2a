import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.layers.step_mask import masked
from keras_ssm.types import Tensor


class Augmentation(Attributes, keras.layers.Layer):
    """Base class of the layers that change sequences at random, in training only.

    Each row changes by draws of its own. What a mask covers stays zero and is never read. A
    subclass says in `augment` what it does.

    Args:
        seed: int or `None`. The same seed gives the same changes, call after call.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.
        training: bool. Whether anything changes. Defaults to `False`.

    Returns:
        Tensor like x.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def augment(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns x, zero where covered, as training is to see it."""
        raise NotImplementedError

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        if not training:
            return x
        x = ops.convert_to_tensor(x)
        dtype = keras.backend.standardize_dtype(x.dtype)
        if "float" not in dtype:
            raise ValueError(f"`x` must hold floats. Received: dtype {dtype}")
        if dtype != "float64":  # half precision is too coarse to count steps or add squares
            x = ops.cast(x, "float32")
        if mask is None:
            mask = ops.ones_like(x[..., 0], dtype="bool")
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
        return ops.cast(masked(self.augment(masked(x, mask), mask), mask), dtype)

    def uniform(self, x, low=0.0, high=1.0):
        """One draw for each row of x, `(batch, 1, 1)`."""
        shape = (ops.shape(x)[0], 1, 1)
        return keras.random.uniform(shape, low, high, x.dtype, seed=self.seed_generator)

    def compute_output_spec(self, x, mask=None, training=None):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
