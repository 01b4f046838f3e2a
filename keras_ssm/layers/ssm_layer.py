import random

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_positive, compatible
from keras_ssm.layers.one_direction import OneDirection
from keras_ssm.ops import backend, exporting

METHODS = ("auto", "chunked", "fft", "recurrent")


class SSMLayer(OneDirection, keras.layers.Layer):
    """Base class of the state-space layers: what all of them share.

    It checks and casts the inputs, applies masks, holds `step_scale`, and describes outputs and
    states. A layer of the family adds its weights in `build_system`, its discretisation in
    `discretize` and its evaluations in `evaluate` and `advance`.

    Args:
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. How a sequence is
            evaluated; all give the same numbers.
        chunk_size: int or `None`. Steps in a chunk of the chunked evaluation: speed and
            memory, not accuracy.
        bidirectional: bool. Whether later samples contribute. Such a layer has no state.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown `method` or a `chunk_size` below 1.
    """

    channels = 1  # output channels for each feature
    takes_timesteps = False  # whether it reads samples at irregular times

    def __init__(
        self,
        method="auto",
        chunk_size=None,
        bidirectional=False,
        seed=None,
        **kwargs,
    ):
        # Inputs are cast here, once: autocast would round a float32 state under a mixed policy.
        super().__init__(autocast=False, **kwargs)
        check_choice("method", method, METHODS)
        check_flags(bidirectional=bidirectional)
        if chunk_size is not None:
            check_positive(chunk_size=chunk_size)
        if bidirectional and method == "recurrent":
            raise ValueError(
                "A bidirectional layer has no recurrent evaluation. "
                f"Received: method={method!r}, bidirectional={bidirectional}"
            )
        self.method = method
        self.chunk_size = chunk_size
        self.bidirectional = bidirectional
        self.seed = seed
        self.supports_masking = True
        self._step_scale = None
        self._initial_step_scale = 1.0

    # What a system provides

    def build_system(self, features):
        """Adds the weights of the system."""
        raise NotImplementedError

    def state_shape(self, features):
        """Shape of the state of one row."""
        raise NotImplementedError

    def chosen_method(self, length):
        """Returns the evaluation of a sequence of `length` steps, a size of a shape."""
        unknown = exporting.known(length) is None and not backend.transforms_unknown_lengths()
        if self.method == "auto" or unknown or not exporting.loops_allowed():
            return "chunked"
        return self.method

    def needs_transform(self, length):
        """Whether a sequence of so many steps (`None`: not known) is evaluated by `"fft"` alone."""
        return False

    def evaluate(self, x, initial_state, lengths, return_state):
        """Maps float inputs `(batch, length, features)` to `(y, state)`."""
        raise NotImplementedError

    def discretize(self):
        """Returns the `DiscreteSystem` of the current weights."""
        raise NotImplementedError

    def advance(self, x, state, system):
        """Maps one float sample `(batch, features)` to `(y, state)`."""
        raise NotImplementedError

    # What all share

    def build(self, input_shape):
        self.check_inputs(input_shape, self.compute_dtype)
        self.features = int(input_shape[-1])
        self.build_system(self.features)
        self._step_scale = self.add_system_weight(
            "step_scale", np.array(self._initial_step_scale), trainable=False
        )
        self.built = True

    def add_system_weight(self, name, value, trainable=True):
        """Adds a real weight that no dtype policy rounds below float32."""
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=self.system_dtype,
            autocast=False,
            trainable=trainable,
            initializer=lambda shape, dtype: ops.convert_to_tensor(value.astype(dtype), dtype),
        )

    def add_complex_weight(self, name, value):
        """Adds the real weights `name_real` and `name_imag`."""
        real = self.add_system_weight(f"{name}_real", value.real)
        return real, self.add_system_weight(f"{name}_imag", value.imag)

    def tensor(self, weight):
        """The value of a weight of the system."""
        return ops.convert_to_tensor(weight, dtype=self.system_dtype)

    def sequence_dtype(self, x):
        """The dtype in which a sequence is evaluated: the system's, or one that is read as well."""
        return self.system_dtype

    def make_rng(self):
        """A generator from `seed`, or from what `keras.utils.set_random_seed` fixed."""
        return np.random.default_rng(random.getrandbits(32) if self.seed is None else self.seed)

    @property
    def system_dtype(self):
        """float32, or float64 under a float64 policy."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    @property
    def step_scale(self):
        """Non-trainable scalar that multiplies every dt: 2 reads samples twice as far apart."""
        return self._initial_step_scale if self._step_scale is None else self._step_scale

    @step_scale.setter
    def step_scale(self, value):
        try:
            scale = float(value)
        except (TypeError, ValueError):
            scale = float("nan")
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"`step_scale` must be positive. Received: step_scale={value!r}")
        if self._step_scale is None:
            self._initial_step_scale = scale
        else:
            self._step_scale.assign(scale)

    def call(self, x, mask=None, initial_state=None, return_state=False, training=None):
        return self.run(x, mask, initial_state, return_state)

    def run(self, x, mask, initial_state, return_state, **extra):
        """`call`, with whatever else `evaluate` takes."""
        self.check_inputs(x.shape, x.dtype)
        x = ops.convert_to_tensor(x)
        x = ops.cast(x, self.sequence_dtype(x))
        lengths = None
        if mask is not None:
            mask = self._checked_mask(mask, x, return_state)
            x = ops.where(ops.expand_dims(mask, -1), x, ops.zeros_like(x))
            if return_state:
                lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        if initial_state is not None or return_state:
            self._check_has_state()
        if initial_state is not None:
            initial_state = self._checked_state(initial_state, x.shape[0])
        y, state = self._evaluate(x, initial_state, lengths, return_state, **extra)
        y = ops.cast(y, self.compute_dtype)
        return (y, state) if return_state else y

    def _evaluate(self, x, initial_state, lengths, return_state, **extra):
        """`evaluate`, also of no rows, of which some products and transforms are errors."""
        tensors = {"x": x, "initial_state": initial_state, "lengths": lengths, **extra}
        if x.shape[0] != 0:
            return self.evaluate(**tensors, return_state=return_state)
        tensors = {k: None if t is None else one_row_more(t) for k, t in tensors.items()}
        y, state = self.evaluate(**tensors, return_state=return_state)
        return y[:0], state[:0] if return_state else None

    def step(self, x, state, system=None):
        """Advances the layer by one sample.

        Args:
            x: float tensor `(batch, features)`. One sample.
            state: float tensor `(batch, *state_shape)`, as `get_initial_state` returns it.
            system: `DiscreteSystem` or `None`. What `discretize` returned; pass it when
                stepping in a loop, so that it is computed once.

        Returns:
            Tuple `(y, state)`: the output `(batch, channels * features)` and the next state.

        Raises:
            ValueError: for inputs or states of another shape, or a layer without state.
        """
        self._check_has_state()
        self.check_built()
        x = ops.convert_to_tensor(x)
        self.check_inputs(x.shape, x.dtype, rank=2)
        state = self._checked_state(state, x.shape[0])
        system = self.discretize() if system is None else system.on_device()
        y, state = self.advance(ops.cast(x, self.system_dtype), state, system)
        return ops.cast(y, self.compute_dtype), state

    def get_initial_state(self, batch_size):
        """Returns the zero state.

        Args:
            batch_size: int or scalar tensor. Number of rows.

        Returns:
            Tensor `(batch_size, *state_shape)`, float32 (float64 under a float64 policy).
        """
        self._check_has_state()
        self.check_built()
        return ops.zeros((batch_size, *self.state_shape(self.features)), dtype=self.system_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(
        self, x, mask=None, initial_state=None, return_state=False, training=None
    ):
        self.check_inputs(x.shape, x.dtype)
        y = keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)
        if initial_state is not None or return_state:
            self._check_has_state()
        if initial_state is not None:
            self._check_state_shape(initial_state.shape, x.shape[0], x.shape[-1])
        if mask is not None:
            self._check_mask_shape(mask.shape, x.shape)
        if not return_state:
            return y
        shape = (x.shape[0], *self.state_shape(x.shape[-1]))
        return y, keras.KerasTensor(shape, dtype=self.system_dtype)

    def compute_mask(self, inputs, previous_mask):
        return previous_mask

    def quantize(self, mode=None, type_check=True, config=None):
        """Leaves the system in float32: its poles do not survive eight bits."""

    def get_config(self):
        return {
            **super().get_config(),
            "method": self.method,
            "chunk_size": self.chunk_size,
            "bidirectional": self.bidirectional,
            "seed": self.seed,
        }

    # Checks

    def check_built(self):
        """Raises a `ValueError` unless the layer has its weights."""
        if not self.built:
            raise ValueError(
                f"{self.name} must be built first: call it on a sequence or call "
                "`build((None, None, features))`. Received: an unbuilt layer"
            )

    def check_inputs(self, shape, dtype, rank=3):
        """Raises a `ValueError` unless these are float inputs of the right shape."""
        expected = "(batch, length, features)" if rank == 3 else "(batch, features)"
        shape = tuple(shape)
        if len(shape) != rank:
            raise ValueError(
                f"`x` of {self.name} must have shape {expected}. Received: x.shape={shape}"
            )
        if shape[-1] is None or (self.built and shape[-1] != self.features):
            wanted = self.features if self.built else "a known number of"
            raise ValueError(
                f"`x` of {self.name} must have {wanted} features on its last axis. "
                f"Received: x.shape={shape}"
            )
        if 0 in shape[1:]:
            raise ValueError(
                f"`x` of {self.name} must have at least one step and one feature. "
                f"Received: x.shape={shape}"
            )
        if "float" not in keras.backend.standardize_dtype(dtype):
            raise ValueError(
                f"`x` of {self.name} must be floating point: cast integers, or embed token ids "
                f"first. Received: x.dtype={keras.backend.standardize_dtype(dtype)}"
            )

    def _check_has_state(self):
        if self.bidirectional:
            raise ValueError(
                f"{self.name} is bidirectional and has no state: `step`, `initial_state` and "
                "`return_state` need a layer that reads forwards. Received: bidirectional=True"
            )

    def _check_state_shape(self, received, batch, features):
        expected, received = (batch, *self.state_shape(features)), tuple(received)
        if not compatible(received, expected):
            raise ValueError(
                f"A state of {self.name} must have shape {expected}. "
                f"Received: state.shape={received}"
            )

    def _checked_state(self, state, batch):
        state = ops.convert_to_tensor(state)
        self._check_state_shape(state.shape, batch, self.features)
        return ops.cast(state, self.system_dtype)

    def _check_mask_shape(self, received, shape):
        if not compatible(tuple(received), tuple(shape[:2])):
            raise ValueError(
                f"`mask` of {self.name} must have shape (batch, length) = {tuple(shape[:2])}. "
                f"Received: mask.shape={tuple(received)}"
            )

    def _checked_mask(self, mask, x, return_state):
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
        self._check_mask_shape(mask.shape, x.shape)
        values = backend.static_value(mask) if return_state else None
        if values is not None and (np.diff(values.astype(int), axis=1) > 0).any():
            raise ValueError(
                "`return_state` needs a mask that pads on the right: True up to each row's last "
                "valid step, then False. Received: a mask with valid steps after masked ones"
            )
        return mask


def one_row_more(x):
    """x with a row of zeros after the last."""
    return ops.concatenate([x, ops.zeros((1, *x.shape[1:]), dtype=x.dtype)], axis=0)
