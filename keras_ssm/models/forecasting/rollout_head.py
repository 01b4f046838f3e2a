import keras
from keras import ops

from keras_ssm.layers import SpaceTime
from keras_ssm.layers.mixer_config import layer_config, mixer_from_config
from keras_ssm.models.forecasting.steps_head import StepsHead
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class RolloutHead(StepsHead):
    """A horizon from one state: a `SpaceTime` layer whose loop is closed, and a linear layer.

    The decoder reads the features of the backbone. From its state after some of their steps it
    rolls out: each step of the horizon is the state one step on, with the features that the
    decoder predicts in the place of new ones. A GELU and a linear layer, zero at first, make the
    forecast of each step.

    Args:
        decoder: `keras_ssm.layers.SpaceTime` with `closed_loop` and one channel.
        steps: int. Steps of a forecast.
        outputs: int. Numbers a step, one for each quantile. Defaults to `1`.
        dense_dtype: dtype policy of the linear layers, or `None` for that of the layer.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        hidden: float tensor `(batch, length, features)`.
        counts: integers `(batch, origins)` from 0 to `length`: after how many steps.
        before: tensor `(batch, features, state_dim)` or `None`. The state before the first step.
        future: float tensor `(batch, origins, steps, covariates)` or `None`.

    Returns:
        Tensor `(batch, origins, steps, outputs)`.

    Raises:
        ValueError: for sizes below 1, or a decoder without a closed loop.

    Example:
        ```python
        decoder = keras_ssm.layers.SpaceTime(8, skip=False, closed_loop=True)
        head = RolloutHead(decoder, steps=24)
        y = head(np.ones((2, 50, 4), "float32"), np.array([[50]] * 2))  # (2, 1, 24, 1), all zero
        ```

    Reference:
        [SpaceTime](https://arxiv.org/abs/2303.09489), section 3.2.
    """

    def __init__(
        self, decoder: SpaceTime, steps: int, outputs: int = 1, dense_dtype=None, **kwargs
    ):
        super().__init__(steps, outputs, dense_dtype, autocast=False, **kwargs)
        if not isinstance(decoder, (SpaceTime, dict)):
            raise ValueError(f"`decoder` must be a `SpaceTime` layer. Received: {decoder!r}")
        config = layer_config(decoder) if isinstance(decoder, SpaceTime) else decoder
        self.decoder_config = config
        self.decoder = mixer_from_config(config, dtype=self.dtype_policy)
        if not self.decoder.closed_loop or self.decoder.channels != 1:
            raise ValueError(
                "`decoder` must have a closed loop and one channel. Received: "
                f"closed_loop={self.decoder.closed_loop}, channels={self.decoder.channels}"
            )
        self.future_dense = None
        zeros = {"kernel_initializer": "zeros", "name": "output_dense"}
        self.output_dense = self.dense(self.outputs, **zeros)

    def build(self, hidden_shape, counts_shape=None, before_shape=None, future_shape=None):
        features = hidden_shape[-1]
        self.decoder.build((None, None, features))
        self.output_dense.build((None, features))
        if future_shape is not None:
            self.future_dense = self.dense(features, use_bias=False, name="future_dense")
            self.future_dense.build(future_shape)
        self.built = True

    def call(
        self,
        hidden: Tensor,
        counts: Tensor,
        before: State | None = None,
        future: Tensor | None = None,
    ) -> Tensor:
        states = self.decoder.states_after(hidden, counts, before)
        rows = self.decoder.rollout(self.steps)[0]
        y = exact_einsum("bphn,hnt->bpth", states, rows)
        y = ops.cast(y, self.compute_dtype)
        if future is not None:
            y = y + self.future_dense(future)
        return self.output_dense(ops.gelu(y, approximate=True))

    def compute_output_spec(self, hidden, counts, before=None, future=None):
        shape = (*counts.shape, self.steps, self.outputs)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "decoder": self.decoder_config}
