import keras
from keras import ops

from keras_ssm.layers.running_normalization import RunningNormalization
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class ValueNormalization(RunningNormalization):
    """`RunningNormalization` of the first feature of a sequence; the others are covariates.

    Args:
        span, epsilon, **kwargs: as there.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask, initial_state, return_state: as there.

    Returns:
        Tuple of the sequence, its first feature normalised, and the deviation
        `(batch, length, 1)`; with `return_state` a tuple of that tuple and the state.

    Example:
        ```python
        layer = ValueNormalization(span=48)
        y, deviation = layer(np.random.default_rng(0).normal(size=(2, 100, 3)))
        ```
    """

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple:
        x = ops.convert_to_tensor(x)
        (value, _, deviation), state = super().call(x[..., :1], mask, initial_state, True)
        joined = [ops.cast(value, x.dtype), x[..., 1:]]
        y = ops.concatenate(joined, axis=-1) if x.shape[-1] > 1 else joined[0]
        return ((y, deviation), state) if return_state else (y, deviation)

    def compute_output_spec(self, x, mask=None, initial_state=None, return_state=False):
        shape = tuple(x.shape)
        deviation = keras.KerasTensor((*shape[:-1], 1), dtype=self.statistics_dtype)
        spec = keras.KerasTensor(shape, dtype=x.dtype), deviation
        return (spec, self.state_spec(shape[0])) if return_state else spec
