import keras
from keras import ops

from keras_ssm.ops.strides import strided_mask
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class StrideMask(keras.layers.Layer):
    """The mask of the steps of a `ConvEncoder`, from that of its samples.

    Args:
        stride: int. Samples from one step to the next.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        mask: boolean tensor `(batch, length)`, True where valid.

    Returns:
        Boolean tensor `(batch, length // stride)`.

    Example:
        ```python
        mask = StrideMask(2)(np.array([[True, True, True, False]]))  # True, False
        ```
    """

    def __init__(self, stride: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.stride = stride

    def call(self, mask: Tensor) -> Tensor:
        return strided_mask(ops.cast(ops.convert_to_tensor(mask), "bool"), self.stride)

    def compute_output_shape(self, input_shape):
        batch, length = input_shape
        return (batch, None if length is None else length // self.stride)

    def compute_output_spec(self, mask):
        return keras.KerasTensor(self.compute_output_shape(mask.shape), dtype="bool")

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}
