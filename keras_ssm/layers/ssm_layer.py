import numpy as np
from keras import ops

from keras_ssm.checks import check_flags
from keras_ssm.layers.evaluation import Evaluation
from keras_ssm.layers.fixed_system import FixedSystem
from keras_ssm.layers.methods import fastest_method
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.ops import backend, exporting
from keras_ssm.types import State, Tensor


class SSMLayer(Evaluation, FixedSystem, SequenceMixer):
    """Base class of the time-invariant state-space layers: what all of them share.

    It holds `step_scale` and chooses the evaluation. A layer of the family adds its weights in
    `build_system`, its discretisation in `discretize` and its evaluations in `evaluate` and
    `advance`. Its weights do not depend on the inputs, so that one `DiscreteSystem` serves a
    whole stream.

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

    # Whether there is a skip D of its own; an axis of `S4ND`, which has one for all axes, has none.
    skips = True

    # Weights that place the poles and weigh the inputs: a small rate and no decay.
    slow_weights = (
        "log_dt",
        "inv_dt",
        "log_A_real",
        "A_real",
        "log_A_imag",
        "A_imag",
        "B_real",
        "B_imag",
        "P_real",
        "P_imag",
        "Lambda_real",
        "Lambda_imag",
    )

    def __init__(
        self,
        method: str = "auto",
        chunk_size: int | None = None,
        bidirectional: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(seed=seed, **kwargs)
        self.bidirectional = self.checked_directions(bidirectional)
        self.method = method
        self.chunk_size = chunk_size
        self._step_scale = None
        self._initial_step_scale = 1.0

    def checked_directions(self, bidirectional):
        """The argument `bidirectional` as it is kept."""
        check_flags(bidirectional=bidirectional)
        return bidirectional

    def skip_weight(self) -> Tensor | None:
        """The value of D, or `None` where there is none."""
        return None if self.D is None else self.tensor(self.D)

    def copied_skip(self) -> Tensor | None:
        """D for a `DiscreteSystem`: on JAX, training and predicting give its own buffer away."""
        return None if self.D is None else ops.copy(self.tensor(self.D))

    @property
    def causal(self) -> bool:
        """Whether no output depends on later samples."""
        return not self.bidirectional

    @property
    def streams(self) -> bool:
        """Whether the layer has a state."""
        return self.stateless_because() is None

    # Methods that a system provides

    def chosen_method(self, length: int | None) -> str:
        """Returns the evaluation of a sequence of `length` steps, a size of a shape."""
        unknown = exporting.known(length) is None and not backend.transforms_unknown_lengths()
        if unknown or not exporting.loops_allowed():
            return "chunked"
        if self.method != "auto":
            return self.method
        steps = exporting.known(length)
        return "chunked" if steps is None else fastest_method(type(self).__name__, steps)

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        """Maps float inputs `(batch, length, features)` to `(y, state)`."""
        raise NotImplementedError

    # Methods that all share

    def build(self, input_shape):
        super().build(input_shape)
        self.add_step_scale()

    def add_step_scale(self):
        """Adds the weight that multiplies every dt."""
        self._step_scale = self.add_system_weight(
            "step_scale", np.array(self._initial_step_scale), trainable=False
        )

    @property
    def step_scale(self):
        """Non-trainable scalar that multiplies every dt: 2 reads samples twice as far apart."""
        return self._initial_step_scale if self._step_scale is None else self._step_scale

    @step_scale.setter
    def step_scale(self, value):
        scale = self.checked_scale(value)
        if self._step_scale is None:
            self._initial_step_scale = scale
        else:
            self._step_scale.assign(scale)

    def checked_scale(self, value) -> float:
        """A `step_scale` as a number; a `ValueError` for one that the layer cannot have."""
        try:
            scale = float(value)
        except (TypeError, ValueError):
            scale = float("nan")
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"`step_scale` must be positive. Received: step_scale={value!r}")
        return scale

    def get_config(self):
        return {
            **super().get_config(),
            "method": self.method,
            "chunk_size": self.chunk_size,
            "bidirectional": self.bidirectional,
        }

    def stateless_because(self):
        """Why the layer has no state, as an error goes on after its name, or `None`."""
        if not self.bidirectional:
            return None
        return (
            "is bidirectional and has no state: `step`, `initial_state` and `return_state` need a "
            "layer that reads forwards. Received: bidirectional=True"
        )

    def check_has_state(self):
        reason = self.stateless_because()
        if reason is not None:
            raise ValueError(f"{self.name} {reason}")

    def check_mask(self, mask, shape, return_state):
        super().check_mask(mask, shape, return_state)
        values = backend.static_value(mask) if return_state else None
        if values is not None and (np.diff(values.astype(int), axis=1) > 0).any():
            raise ValueError(
                "`return_state` needs a mask that pads on the right: True up to each row's last "
                "valid step, then False. Received: a mask with valid steps after masked ones"
            )


def valid_steps(mask, return_state):
    """Steps of each row before the padding, for the state after them; `None` for all steps."""
    return ops.sum(ops.cast(mask, "int32"), axis=1) if return_state and mask is not None else None
