import keras
from keras import ops

from keras_ssm.models.forecasting.steps_head import StepsHead
from keras_ssm.types import Tensor

MIXED = 16  # features of a step of the forecast, where covariates are known in advance


@keras.saving.register_keras_serializable(package="keras_ssm")
class ForecastHead(StepsHead):
    """What hidden features add to each step of a forecast: nothing, before it is trained.

    Without covariates it is one linear layer to all steps. With covariates that are known in
    advance a step has features of its own: what the hidden features say of the step, and a
    projection of its covariates, are added, activated, and read out alike for all steps.

    Args:
        steps: int. Steps of a forecast.
        outputs: int. Numbers a step, one for each quantile. Defaults to `1`.
        dense_dtype: dtype policy of the linear layers, or `None` for that of the layer.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        hidden: float tensor `(batch, origins, features)`.
        future: float tensor `(batch, origins, steps, covariates)` or `None`.

    Returns:
        Tensor `(batch, origins, steps, outputs)`.

    Raises:
        ValueError: for sizes below 1.

    Example:
        ```python
        head = ForecastHead(steps=24)
        y = head(np.ones((2, 1, 32), "float32"))  # (2, 1, 24, 1), all zero
        ```

    Reference:
        [TiDE](https://arxiv.org/abs/2304.08424), section 4.2, whose decoder does likewise.
    """

    def __init__(self, steps: int, outputs: int = 1, dense_dtype=None, **kwargs):
        super().__init__(steps, outputs, dense_dtype, **kwargs)
        self.hidden_dense = self.future_dense = self.output_dense = None

    def build(self, hidden_shape, future_shape=None):
        zeros = {"kernel_initializer": "zeros", "name": "output_dense"}
        if future_shape is None:
            self.output_dense = self.dense(self.steps * self.outputs, **zeros)
            self.output_dense.build(hidden_shape)
        else:
            self.hidden_dense = self.dense(self.steps * MIXED, name="hidden_dense")
            self.hidden_dense.build(hidden_shape)
            self.future_dense = self.dense(MIXED, use_bias=False, name="future_dense")
            self.future_dense.build(future_shape)
            self.output_dense = self.dense(self.outputs, **zeros)
            self.output_dense.build((None, MIXED))
        self.built = True

    def call(self, hidden: Tensor, future: Tensor | None = None) -> Tensor:
        batch = ops.shape(hidden)[:2]
        if future is None:
            return ops.reshape(self.output_dense(hidden), (*batch, self.steps, self.outputs))
        y = ops.reshape(self.hidden_dense(hidden), (*batch, self.steps, MIXED))
        return self.output_dense(ops.gelu(y + self.future_dense(future), approximate=True))

    def compute_output_shape(self, hidden_shape, future_shape=None):
        return (*hidden_shape[:2], self.steps, self.outputs)

    def compute_output_spec(self, hidden, future=None):
        shape = self.compute_output_shape(hidden.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)
