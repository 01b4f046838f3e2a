import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_choice
from keras_ssm.layers.poolings import Attention, Last, Max, Mean, running
from keras_ssm.ops import backend
from keras_ssm.types import Tensor

POOLINGS = ("mean", "last", "max", "attention", None)


@keras.saving.register_keras_serializable(package="keras_ssm")
class SequencePooling(Attributes, keras.layers.Layer):
    """Reduces a sequence to one vector, over its valid steps.

    A sequence that comes in pieces is pooled by `pool`, which carries a state of constant size
    from piece to piece: after the last one its value is that of the whole sequence.

    Weights: with `"attention"` `kernel` `(features, features)` and `query` `(features, 1)`. The
    weight of a step x is the softmax of `tanh(x kernel) query` over the steps. The query starts at
    zero, and the pooling as the mean.

    Args:
        pooling: str or `None`. `"mean"`, `"last"` (the last valid step), `"max"` (of each
            feature), `"attention"` (a mean by learned weights), or `None` (the sequence itself).
            Defaults to `"mean"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`; of images `(batch, *sizes, features)`, whose
            pixels are pooled one after the other, the last axis first.
        mask: boolean tensor like x without features, True where valid. Defaults to all.

    Returns:
        Tensor `(batch, features)`, or x without pooling. Zeros for a row without a valid step.

    Raises:
        ValueError: for an unknown `pooling`.

    Example:
        ```python
        pooled = keras_ssm.layers.SequencePooling("last")(np.ones((2, 10, 4), "float32"))  # (2, 4)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), appendix D;
        [Attention-based Deep Multiple Instance Learning](https://arxiv.org/abs/1802.04712),
        equation 8.
    """

    def __init__(self, pooling: str | None = "mean", **kwargs):
        super().__init__(**kwargs)
        check_choice("pooling", pooling, POOLINGS)
        self.pooling = pooling
        self.supports_masking = True
        kinds = {"mean": Mean, "last": Last, "max": Max}
        kind = kinds[pooling]() if pooling in kinds else None
        self._kind = Attention(self._score) if pooling == "attention" else kind

    def build(self, input_shape):
        if self.pooling == "attention":
            features = input_shape[-1]
            settings = {"dtype": self.state_dtype, "autocast": False}
            self.kernel = self.add_weight(name="kernel", shape=(features, features), **settings)
            self.query = self.add_weight(
                name="query", shape=(features, 1), initializer="zeros", **settings
            )
        self.built = True

    def call(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = ops.convert_to_tensor(x)
        if self.pooling is None:
            return x
        if len(x.shape) > 3:  # the pixels of an image as one sequence
            x = ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
            mask = mask if mask is None else ops.reshape(mask, (ops.shape(mask)[0], -1))
        if mask is not None and backend.all_true(mask):
            mask = None
        if mask is None and self.pooling in ("mean", "last"):
            y = ops.cast(x, self.state_dtype)
            y = backend.mean(y, axis=1) if self.pooling == "mean" else y[:, -1]
        else:
            y = self._kind.read(self._kind.reduce(self._steps(x, mask)))
        return ops.cast(y, self.compute_dtype)

    def pool(
        self, x: Tensor, mask: Tensor | None, state: dict, every_step: bool = False
    ) -> tuple[Tensor, dict]:
        """Pools a sequence that goes on from a state.

        Args:
            x: float tensor `(batch, length, features)`. The next piece.
            mask: boolean tensor `(batch, length)`, True where valid, or `None`: all.
            state: what `get_initial_state` or the last `pool` returned.
            every_step: bool. Whether the pooled value after each step of the piece is returned.
                Its length must then be known. Defaults to `False`.

        Returns:
            Tuple `(y, state)`: the value of the sequence so far, `(batch, features)`, or those
            after each step, `(batch, length, features)`, and the next state. Without pooling x,
            and an empty dict.

        Raises:
            ValueError: for a state of another kind of pooling.

        Example:
            ```python
            pooling = keras_ssm.layers.SequencePooling("max")
            state = pooling.get_initial_state(2, features=4)
            y, state = pooling.pool(np.ones((2, 10, 4), "float32"), None, state)  # (2, 4)
            ```
        """
        self.check_state(state)
        x = ops.convert_to_tensor(x)
        if self.pooling is None:
            return x, {}
        if not self.built:
            self.build(tuple(x.shape))
        state = {
            key: ops.convert_to_tensor(part, dtype=self._dtype_of(key))
            for key, part in state.items()
        }
        steps = self._steps(x, mask)
        if every_step:
            states = running(self._kind, steps, state)
            y, state = self._kind.read(states), {k: part[:, -1] for k, part in states.items()}
        else:
            state = self._kind.combine(state, self._kind.reduce(steps))
            y = self._kind.read(state)
        return ops.cast(y, self.compute_dtype), state

    def get_initial_state(self, batch_size: int | Tensor, features: int) -> dict:
        """Returns the state before the first step, for `batch_size` rows: a dict of tensors.

        Args:
            batch_size: int or integer tensor. Number of rows.
            features: int. Features of a step.
        """
        return {
            key: ops.full(shape, first, dtype=self._dtype_of(key))
            for key, (shape, first) in self._parts(batch_size, features).items()
        }

    def state_spec(self, batch_size, features):
        """The state of `batch_size` rows as symbolic tensors."""
        return {
            key: keras.KerasTensor(shape, dtype=self._dtype_of(key))
            for key, (shape, _) in self._parts(batch_size, features).items()
        }

    def check_state(self, state):
        """Raises a `ValueError` for a state that is not of this pooling."""
        keys = list(self.state_keys)
        received = sorted(state) if isinstance(state, dict) else type(state).__name__
        if received != keys:
            raise ValueError(
                f"`state` of the pooling {self.pooling!r} must be a dict of {keys}. "
                f"Received: {received}"
            )

    @property
    def state_keys(self):
        """The names of the parts of the state."""
        return tuple(sorted(self._parts(1, 1)))

    @property
    def state_dtype(self):
        """Thousands of steps do not add up in half precision."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _dtype_of(self, key):
        return "int32" if key == "count" else self.state_dtype

    def _parts(self, batch_size, features):
        """Shape and first value of the parts of the state, by name."""
        keys = {} if self._kind is None else self._kind.keys
        return {
            key: ((batch_size, features if size == "features" else size), first)
            for key, (size, first) in keys.items()
        }

    def _steps(self, x, mask):
        x = ops.cast(x, self.state_dtype)
        if mask is None:
            mask = ops.ones_like(x[..., 0], dtype="bool")
        mask = ops.expand_dims(ops.cast(ops.convert_to_tensor(mask), "bool"), -1)
        return self._kind.of_steps(x, mask)

    def _score(self, x):
        kernel, query = (ops.convert_to_tensor(w) for w in (self.kernel, self.query))
        return backend.matmul(ops.tanh(backend.matmul(x, kernel)), query)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape) if self.pooling is None else (input_shape[0], input_shape[-1])

    def compute_output_spec(self, x, mask=None):
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)

    def compute_mask(self, inputs, previous_mask):
        return previous_mask if self.pooling is None else None

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling}
