import random

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.attributes import Attributes, is_ours
from keras_ssm.checks import check_at_least
from keras_ssm.layers.mixer_checks import MixerChecks
from keras_ssm.layers.one_direction import OneDirection
from keras_ssm.layers.state_tree import map_shapes
from keras_ssm.layers.step_mask import masked
from keras_ssm.layers.stepwise import stepwise
from keras_ssm.ops import backend
from keras_ssm.types import State, Tensor


class SequenceMixer(Attributes, MixerChecks, OneDirection, keras.layers.Layer):
    """Base class of every layer that mixes the steps of a sequence.

    `SSMBlock`, `SSMBackbone` and the task models take any such layer. The base checks and casts
    inputs, zeroes what a mask covers, checks and describes states, and steps through a stream.
    A mixer adds its weights in `build_system`, says the shape of its state in `state_shape`, and
    advances by one sample in `advance`; a sequence is then read sample by sample, and a masked
    step leaves the state as it is. A mixer that has a faster way to read a whole sequence
    overrides `evaluate`.

    A mixer describes itself by these attributes:

    | attribute | meaning | default |
    |---|---|---|
    | `causal` | no output depends on later samples | `True` |
    | `streams` | it has a state: `step`, `initial_state`, `return_state` | `True` |
    | `channels` | outputs for each feature; see `output_features` | `1` |
    | `input_rank` | axes of its input: batch, positions, features | `3` |
    | `has_system` | `discretize` gives what `step` then takes as `system` | `False` |
    | `call_arguments` | names of further arguments of its call, such as `timesteps` | `()` |
    | `slow_weights` | names of weights that train slowly and do not decay | `()` |
    | `undecayed_weights` | names of weights that do not decay | `()` |
    | `lora_layers` | names of its layers that `enable_lora` adapts by default | `()` |

    Blocks and models hand the `call_arguments` down: the call of the mixer takes them by name,
    with `None` as default. The last two rows are what `keras_ssm.optimizers.ssm_optimizer` reads.

    Args:
        seed: int or `None`. Seed of the initial weights. A backbone gives layer i `seed + i`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid; the rest counts as zero.
        initial_state: the state before the first sample, as `get_initial_state` returns it.
        return_state: bool. Whether the state after the last sample is returned as well.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and the
        state.

    Raises:
        ValueError: for inputs, masks or states of another shape, integer or empty inputs, or a
            state asked of a mixer that has none.

    Example:
        A moving average of every feature, with a decay that is learned:
        ```python
        @keras.saving.register_keras_serializable(package="mine")
        class MovingAverage(keras_ssm.layers.SequenceMixer):
            slow_weights = ("decay",)

            def build_system(self, features):
                self.decay = self.add_system_weight("decay", np.zeros(features))

            def state_shape(self, features):
                return (features,)

            def advance(self, x, state):
                decay = keras.ops.sigmoid(self.tensor(self.decay))
                state = decay * state + (1.0 - decay) * x
                return state, state

        backbone = keras_ssm.models.SSMBackbone(MovingAverage(), num_layers=2, hidden_dim=8)
        model = keras_ssm.models.SSMClassifier(backbone, num_classes=3)
        model.predict([np.zeros(20), np.zeros(30)], verbose=0)  # (2, 3)
        ```
        A state of several tensors is a dict: `state_shape` then returns a dict of shapes, and
        `advance` takes and returns a dict of tensors.
    """

    causal = True
    streams = True
    channels = 1
    input_rank = 3
    has_system = False
    call_arguments = ()
    slow_weights = ()
    undecayed_weights = ()
    lora_layers = ()
    no_scale_because = "has no such dt"  # said after its name where `step_scale` is refused

    def __init__(self, seed: int | None = None, **kwargs):
        # Inputs are cast here, once: autocast would round a float32 state under a mixed policy.
        super().__init__(autocast=False, **kwargs)
        check_at_least(0, or_none=True, seed=seed)
        self.seed = seed
        self.supports_masking = True

    # Methods that a mixer provides

    def build_system(self, features: int) -> None:
        """Adds the weights."""
        raise NotImplementedError

    def state_shape(self, features: int) -> tuple | dict | list:
        """Shape of the state of one row, or a tree of shapes, such as a dict of them."""
        raise NotImplementedError

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Maps one float sample `(batch, features)` and a state to `(y, state)`."""
        raise NotImplementedError

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        """Maps float inputs `(batch, length, features)` to `(y, state)`.

        Inputs are zero where the mask covers them. Further arguments of the call come by name.
        The state may be `None` without `return_state`.
        """
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0])
        return stepwise(self.advance, x, mask, initial_state)

    def output_features(self, features: int) -> int:
        """Number of output features for so many input features."""
        return self.channels * features

    def state_spec(self, batch: int | None, features: int) -> State:
        """The state of `batch` rows as a tree of `keras.KerasTensor`s.

        Override it for parts of other dtypes than the system's, such as a count of steps.
        """
        dtype = self.system_dtype

        def spec(shape):
            # The name is given: Keras would take long to make one, in every step.
            return keras.KerasTensor((batch, *shape), dtype=dtype, name="state")

        return map_shapes(spec, self.state_shape(features))

    def sequence_dtype(self, x: Tensor) -> str:
        """The dtype in which a sequence is evaluated: the system's, or one that is read as well."""
        return self.system_dtype

    def needs_transform(self, length: int | None) -> bool:
        """Whether a sequence of so many steps (`None`: not known) needs Fourier transforms."""
        return False

    # Methods that all share

    def build(self, input_shape):
        self.check_inputs(input_shape, self.compute_dtype)
        self.features = int(input_shape[-1])
        self.build_system(self.features)
        self.built = True

    def add_weight(self, *args, **kwargs):
        weight = super().add_weight(*args, **kwargs)
        groups = {"slow": self.slow_weights, "undecayed": self.undecayed_weights}
        for group, names in groups.items():
            if weight.name in names:
                weight.optimizer_group = group  # `ssm_optimizer` reads it
        return weight

    def add_system_weight(
        self, name: str, value: np.ndarray, trainable: bool = True
    ) -> keras.Variable:
        """Adds a real weight that no dtype policy rounds below float32."""
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=self.system_dtype,
            autocast=False,
            trainable=trainable,
            initializer=lambda shape, dtype: ops.convert_to_tensor(value.astype(dtype), dtype),
        )

    def add_complex_weight(
        self, name: str, value: np.ndarray
    ) -> tuple[keras.Variable, keras.Variable]:
        """Adds the real weights `name_real` and `name_imag`."""
        real = self.add_system_weight(f"{name}_real", value.real)
        return real, self.add_system_weight(f"{name}_imag", value.imag)

    def tensor(self, weight) -> Tensor:
        """The value of a weight of the system."""
        return ops.convert_to_tensor(weight, dtype=self.system_dtype)

    def make_rng(self) -> np.random.Generator:
        """A generator from `seed`, or from what `keras.utils.set_random_seed` fixed."""
        return np.random.default_rng(random.getrandbits(32) if self.seed is None else self.seed)

    @property
    def system_dtype(self) -> str:
        """float32, or float64 under a float64 policy."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, State]:
        return self.run(x, mask, initial_state, return_state)

    def run(self, x, mask, initial_state, return_state, **arguments):
        """`call`, with the `call_arguments` of the mixer."""
        self.check_inputs(x.shape, x.dtype)
        x = ops.convert_to_tensor(x)
        x = ops.cast(x, self.sequence_dtype(x))
        if mask is not None:
            mask = ops.cast(ops.convert_to_tensor(mask), "bool")
            self.check_mask(mask, x.shape, return_state)
            if backend.all_true(mask):
                mask = None
            else:
                x = masked(x, mask)
        if initial_state is not None or return_state:
            self.check_has_state()
        if initial_state is not None:
            initial_state = self._checked_state(initial_state, x.shape[0])
        tensors = {"x": x, "mask": mask, "initial_state": initial_state, **arguments}
        y, state = self._evaluate(tensors, return_state)
        y = ops.cast(y, self.compute_dtype)
        return (y, state) if return_state else y

    def _evaluate(self, tensors, return_state):
        """`evaluate`, also of no rows, of which some products and transforms are errors."""
        if tensors["x"].shape[0] != 0:
            return self.evaluate(**tensors, return_state=return_state)
        tensors = tree.map_structure(lambda t: None if t is None else _one_row_more(t), tensors)
        y, state = self.evaluate(**tensors, return_state=return_state)
        return y[:0], tree.map_structure(lambda t: t[:0], state) if return_state else None

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advances the layer by one sample.

        Args:
            x: float tensor `(batch, features)`. One sample.
            state: tensor or tree of tensors, as `get_initial_state` returns it.

        Returns:
            Tuple `(y, state)`: the output `(batch, channels * features)` and the next state.

        Raises:
            ValueError: for inputs or states of another shape, or a layer without state.
        """
        y, state = self.advance(*self._checked_step(x, state))
        return ops.cast(y, self.compute_dtype), state

    def _checked_step(self, x, state):
        self.check_has_state()
        self.check_built()
        x = ops.convert_to_tensor(x)
        self.check_inputs(x.shape, x.dtype, rank=self.input_rank - 1)
        return ops.cast(x, self.system_dtype), self._checked_state(state, x.shape[0])

    def get_initial_state(self, batch_size: int | Tensor) -> State:
        """Returns the zero state.

        Args:
            batch_size: int or scalar tensor. Number of rows.

        Returns:
            Tensor `(batch_size, *state_shape)`, or a tree of such, float32 (float64 under a
            float64 policy) unless the mixer says otherwise.
        """
        self.check_has_state()
        self.check_built()
        return tree.map_structure(
            lambda spec: ops.zeros((batch_size, *spec.shape[1:]), dtype=spec.dtype),
            self.state_spec(None, self.features),
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.output_features(input_shape[-1]))

    def compute_output_spec(
        self, x, mask=None, initial_state=None, return_state=False, training=None, **arguments
    ):
        self.check_inputs(x.shape, x.dtype)
        y = keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)
        if initial_state is not None or return_state:
            self.check_has_state()
        if initial_state is not None:
            self.map_state(lambda spec, state: None, initial_state, x.shape[0], x.shape[-1])
        if mask is not None:
            self._check_mask_shape(mask.shape, x.shape)
        return (y, self.state_spec(x.shape[0], x.shape[-1])) if return_state else y

    def compute_mask(self, inputs, previous_mask):
        return previous_mask

    def quantize(self, mode=None, type_check=True, config=None):
        """Leaves the weights of the system as they are: poles do not survive eight bits.

        Projections that a mixer has as layers of its own are quantised like any other.
        """

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}

    def _refuse_of_others(self, name, value):
        if name == "step_scale" and is_ours(type(self)):
            self.refuse_scale(f"step_scale={value!r}")
        super()._refuse_of_others(name, value)

    def _checked_state(self, state, batch):
        def cast(spec, part):
            return ops.cast(ops.convert_to_tensor(part), spec.dtype)

        return self.map_state(cast, state, batch, self.features)


def _one_row_more(x):
    """x with a row of zeros after the last."""
    return ops.concatenate([x, ops.zeros((1, *ops.shape(x)[1:]), dtype=x.dtype)], axis=0)
