import keras

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_positive
from keras_ssm.layers.exact_layers import Dense


class StepsHead(Attributes, keras.layers.Layer):
    """Base class of the heads of forecasters: sizes, and linear layers with a policy of their own.

    Args:
        steps: int. Steps of a forecast.
        outputs: int. Numbers a step, one for each quantile. Defaults to `1`.
        dense_dtype: dtype policy of the linear layers, or `None` for that of the layer.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, steps: int, outputs: int = 1, dense_dtype=None, **kwargs):
        super().__init__(**kwargs)
        self.steps, self.outputs = check_positive(steps=steps, outputs=outputs)
        self.supports_masking = True
        self.dense_dtype = dense_dtype and keras.dtype_policies.get(dense_dtype)

    def dense(self, units: int, **kwargs) -> Dense:
        """Returns a linear layer of this head."""
        return Dense(units, dtype=self.dense_dtype or self.dtype_policy, **kwargs)

    def compute_mask(self, inputs, previous_mask):
        return None

    def get_config(self):
        dtype = self.dense_dtype and keras.dtype_policies.serialize(self.dense_dtype)
        sizes = {"steps": self.steps, "outputs": self.outputs}
        return {**super().get_config(), **sizes, "dense_dtype": dtype}
