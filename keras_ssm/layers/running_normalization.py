import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_number
from keras_ssm.ops.recurrence import scan
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class RunningNormalization(Attributes, keras.layers.Layer):
    """Normalises each step by a running mean and deviation of the steps so far.

    Both weigh the sample before the last `1 - 2 / (span + 1)` times as much as the last, and so
    on, over the sum of all weights, as `pandas.Series.ewm(span=span, ignore_na=True)` does. So no
    output depends on later steps, and a stream goes on from a state of three numbers a feature.
    The layer returns mean and deviation as well, by which a forecast is brought back:
    `mean + deviation * y`. It has no weights.

    Args:
        span: float. How far back the statistics reach, in steps, at least 1.
        epsilon: float. Added to the variance. Defaults to `1e-5`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. A step that it covers changes
            nothing: its output is zero, and its statistics are those before it.
        initial_state: what `get_initial_state`, a step or a call with `return_state` gave.
        return_state: bool. Whether the state after the last step is returned.

    Returns:
        Tuple `(y, mean, deviation)` of tensors `(batch, length, features)`; y in the compute
        dtype, the others in float32 or float64. With `return_state` a tuple of that tuple and the
        state, a dict of tensors `(batch, features)`.

    Raises:
        ValueError: for a `span` below 1 or a negative `epsilon`.

    Example:
        ```python
        layer = keras_ssm.layers.RunningNormalization(span=48)
        y, mean, deviation = layer(np.random.default_rng(0).normal(size=(2, 100, 1)))
        ```

    Reference:
        - [Reversible instance normalization](https://openreview.net/forum?id=cGDAkQo1C0p), which
          takes the statistics of a window.
        - [Incremental calculation of weighted mean and variance](
          https://fanf2.user.srcf.net/hermes/doc/antiforgery/stats.pdf), section 9.
    """

    def __init__(self, span: float, epsilon: float = 1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)  # statistics need more than half precision
        check_number("span", span, low=1)
        check_number("epsilon", epsilon, low=0)
        self.span = span
        self.epsilon = epsilon
        self.supports_masking = True

    @property
    def statistics_dtype(self) -> str:
        """float32, or float64 under a float64 policy."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple:
        x = ops.cast(ops.convert_to_tensor(x), self.statistics_dtype)
        valid = ops.ones_like(x)
        if mask is not None:
            mask = ops.cast(ops.convert_to_tensor(mask), "bool")[..., None]
            valid = ops.where(mask, valid, ops.zeros_like(x))
            x = ops.where(mask, x, ops.zeros_like(x))
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0], x.shape[-1])
        before = {
            name: ops.cast(ops.convert_to_tensor(value), x.dtype)
            for name, value in initial_state.items()
        }
        # A masked step changes nothing: its factor is one, and it adds zero.
        keep = 1.0 - valid * (1.0 - self.decay)
        weight, total = self._sums(
            keep, valid, x, ops.concatenate([before["weight"], before["total"]], axis=-1)
        )
        weight_before = _shifted(weight, before["weight"])
        total_before = _shifted(total, before["total"])
        mean = total / _positive(weight)
        change = x - total_before / _positive(weight_before)
        change = ops.where(weight_before > 0, change, ops.zeros_like(change))
        # The sum of squares about the mean grows by a product of two deviations: nothing cancels.
        grown = valid * change * change * (self.decay * weight_before / _positive(weight))
        squares, _ = self._sums(
            keep,
            grown,
            ops.zeros_like(grown),
            ops.concatenate([before["squares"], ops.zeros_like(before["squares"])], axis=-1),
        )
        deviation = self.deviation(weight, squares)
        y = ops.cast(valid * (x - mean) / _positive(deviation), self.compute_dtype)
        if not return_state:
            return y, mean, deviation
        state = {"weight": weight[:, -1], "total": total[:, -1], "squares": squares[:, -1]}
        return (y, mean, deviation), state

    @property
    def decay(self) -> float:
        """The weight of a sample, over that of the sample after it."""
        return 1.0 - 2.0 / (self.span + 1.0)

    def deviation(self, weight: Tensor, squares: Tensor) -> Tensor:
        """The standard deviation of these sums, which are two of the three parts of the state."""
        variance = squares / _positive(weight) + self.epsilon
        root = ops.sqrt(_positive(variance))  # the slope of a root at 0 is infinite
        return ops.where(variance > 0, root, ops.zeros_like(root))

    def get_initial_state(self, batch_size: int | Tensor, features: int = 1) -> dict:
        """Returns the state before the first step, for `batch_size` rows."""
        return {
            name: ops.zeros((batch_size, features), dtype=self.statistics_dtype)
            for name in ("weight", "total", "squares")
        }

    def state_spec(self, batch: int | None, features: int = 1) -> dict:
        """The state of `batch` rows as symbolic tensors."""
        return {
            name: keras.KerasTensor((batch, features), dtype=self.statistics_dtype)
            for name in ("weight", "total", "squares")
        }

    def compute_output_spec(self, x, mask=None, initial_state=None, return_state=False):
        shape = tuple(x.shape)
        dtypes = (self.compute_dtype, self.statistics_dtype, self.statistics_dtype)
        spec = tuple(keras.KerasTensor(shape, dtype=dtype) for dtype in dtypes)
        return (spec, self.state_spec(shape[0], shape[-1])) if return_state else spec

    def compute_mask(self, inputs, previous_mask):
        return None

    def get_config(self):
        return {**super().get_config(), "span": self.span, "epsilon": self.epsilon}

    def _sums(self, keep, first, second, initial):
        """Two running sums with the same factors: as the parts of a complex number."""
        factors = ops.concatenate([keep, ops.zeros_like(keep)], axis=-1)
        sums = scan(factors, ops.concatenate([first, second], axis=-1), initial)
        return ops.split(sums, 2, axis=-1)


def _shifted(x, before):
    """The values before each step."""
    return ops.concatenate([before[:, None], x[:, :-1]], axis=1)


def _positive(x):
    """A divisor: ones in place of zeros."""
    return ops.where(x > 0, x, ops.ones_like(x))
