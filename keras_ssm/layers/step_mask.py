import keras
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class StepMask(keras.layers.Layer):
    """Tells Keras which steps of a sequence are valid; the sequence itself passes unchanged.

    Keras' losses and metrics then leave the others out, and layers behind it that know masks
    get this one.

    Call arguments:
        inputs: list of a tensor `(batch, length, ...)` and a boolean mask `(batch, length)`.

    Returns:
        The tensor, with the mask as its Keras mask.

    Example:
        ```python
        x, mask = np.ones((2, 3, 4), "float32"), np.array([[True, True, False]] * 2)
        y = StepMask()([x, mask])  # (2, 3, 4)
        ```
    """

    def __init__(self, **kwargs):
        # No casts: the default policy may not be that of the model.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        # A copy, since a tensor carries one mask.
        return ops.copy(inputs[0])

    def compute_mask(self, inputs, previous_mask):
        return inputs[1]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(tuple(inputs[0].shape), dtype=inputs[0].dtype)


def masked(x, mask):
    """x with zeros where a mask of its first axes covers it, in values and gradients."""
    mask = ops.cast(mask, "bool")
    if backend.all_true(mask):
        return x
    for _ in x.shape[len(mask.shape) :]:
        mask = ops.expand_dims(mask, -1)
    return ops.where(mask, x, ops.zeros_like(x))
