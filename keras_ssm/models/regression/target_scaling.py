import keras
import numpy as np
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class TargetScaling(Attributes, keras.layers.Layer):
    """Brings outputs of the size of one to the mean and the deviation of targets.

    y = x * scale + mean, a scale and a mean for each output. They are 1 and 0 until `adapt`.
    Outputs are float32 under every half precision, which has three digits.

    Weights, which do not train: `mean` and `scale` `(outputs,)`, and `count`, the number of
    targets from which they are.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(..., outputs)`.

    Returns:
        Tensor of the same shape, float32 or float64.

    Example:
        ```python
        scaling = TargetScaling()
        scaling.build((None, 1))
        scaling.adapt(np.array([[100.0], [300.0]]))
        y = scaling(np.zeros((2, 1), "float32"))  # 200
        ```
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        settings = {"trainable": False, "dtype": self.exact_dtype, "autocast": False}
        for name, size, first in (
            ("mean", input_shape[-1:], "zeros"),
            ("scale", input_shape[-1:], "ones"),
            ("count", (), "zeros"),
        ):
            weight = self.add_weight(name=name, shape=size, initializer=first, **settings)
            setattr(self, name, weight)
        self.built = True

    @property
    def exact_dtype(self):
        """The dtype of weights and outputs."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def adapt(self, targets: np.ndarray) -> None:
        """Takes mean and deviation from an array `(rows, outputs)`; targets that are all alike
        keep the scale 1."""
        targets = np.asarray(targets, "float64")
        deviation = targets.std(axis=0)
        # The rounding error of equal numbers is no deviation.
        alike = deviation <= 1e-12 * np.abs(targets).max(axis=0, initial=0)
        self.mean.assign(targets.mean(axis=0))
        self.scale.assign(np.where(alike, 1.0, deviation))
        self.count.assign(float(len(targets)))

    def call(self, x: Tensor) -> Tensor:
        x = ops.cast(x, self.exact_dtype)
        return x * ops.convert_to_tensor(self.scale) + ops.convert_to_tensor(self.mean)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(tuple(x.shape), dtype=self.exact_dtype)
