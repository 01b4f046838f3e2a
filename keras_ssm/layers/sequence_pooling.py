import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.ops import backend
from keras_ssm.types import Tensor

POOLINGS = ("mean", "last", None)


@keras.saving.register_keras_serializable(package="keras_ssm")
class SequencePooling(Attributes, keras.layers.Layer):
    """Reduces a sequence to one vector, over its valid steps.

    Args:
        pooling: str or `None`. `"mean"`, `"last"` (the last valid step), or `None` (the
            sequence itself). Defaults to `"mean"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Defaults to all.

    Returns:
        Tensor `(batch, features)`, or x without pooling.

    Raises:
        ValueError: for an unknown `pooling`.

    Example:
        ```python
        pooled = keras_ssm.layers.SequencePooling("last")(np.ones((2, 10, 4), "float32"))  # (2, 4)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), appendix D.
    """

    def __init__(self, pooling: str | None = "mean", **kwargs):
        super().__init__(**kwargs)
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}")
        self.pooling = pooling
        self.supports_masking = True

    def call(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = ops.convert_to_tensor(x)
        if self.pooling is None:
            return x
        # Thousands of steps do not add up in half precision.
        y = x if self.compute_dtype == "float64" else ops.cast(x, "float32")
        if mask is None:
            y = backend.mean(y, axis=1) if self.pooling == "mean" else y[:, -1]
            return ops.cast(y, self.compute_dtype)
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
        count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        if self.pooling == "mean":
            y = ops.sum(ops.where(ops.expand_dims(mask, -1), y, ops.zeros_like(y)), axis=1)
            y = y / ops.cast(ops.maximum(count, 1), y.dtype)
        else:
            position = ops.cumsum(ops.cast(mask, "int32"), axis=1)
            last = ops.logical_and(mask, position == count)
            y = ops.sum(ops.where(ops.expand_dims(last, -1), y, ops.zeros_like(y)), axis=1)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape) if self.pooling is None else (input_shape[0], input_shape[-1])

    def compute_output_spec(self, x, mask=None):
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)

    def compute_mask(self, inputs, previous_mask):
        return previous_mask if self.pooling is None else None

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling}
