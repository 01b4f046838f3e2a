"""Checks of a mixer's inputs, states and masks."""

import keras
import numpy as np
from keras import tree

from keras_ssm.checks import compatible
from keras_ssm.layers.state_tree import map_parts


class MixerChecks:
    """Checks of inputs, masks, states and call arguments, for `SequenceMixer`."""

    def check_built(self):
        """Raises a `ValueError` unless the layer has its weights."""
        if not self.built:
            raise ValueError(
                f"{self.name} must be built first: call it on a sequence or call "
                "`build((None, None, features))`. Received: an unbuilt layer"
            )

    def check_has_state(self):
        """Raises a `ValueError` unless the layer has a state."""
        if not self.streams:
            raise ValueError(
                f"{self.name} has no state: `step`, `initial_state` and `return_state` need a "
                f"mixer that streams. Received: {type(self).__name__}"
            )

    def check_takes(self, arguments):
        """Raises a `ValueError` for names of arguments that the call does not take."""
        for name in arguments:
            if name in self.call_arguments:
                continue
            if name == "timesteps":
                raise ValueError(
                    "`timesteps` need a mixer that reads samples at irregular times, such as `S5`. "
                    f"Received: a mixer {type(self).__name__}"
                )
            raise ValueError(
                f"`{name}` needs a mixer with such a call argument: those of "
                f"{type(self).__name__} are {list(self.call_arguments)}. Received: {name}"
            )

    def refuse_scale(self, received):
        """Raises the `ValueError` of a mixer without `step_scale`."""
        raise ValueError(
            "`step_scale` multiplies the dt of layers such as `S4D` and `S5`: a "
            f"{type(self).__name__} {self.no_scale_because}. Received: {received}"
        )

    def check_inputs(self, shape, dtype, rank=None):
        """Raises a `ValueError` unless these are float inputs of the right shape."""
        rank = self.input_rank if rank is None else rank
        check_samples(shape, dtype, rank, self.features if self.built else None, self.name)

    def check_mask(self, mask, shape, return_state):
        """Raises a `ValueError` for a boolean mask that inputs of this shape cannot have."""
        self._check_mask_shape(mask.shape, shape)

    def _check_mask_shape(self, received, shape):
        if not compatible(tuple(received), tuple(shape[:-1])):
            flat = self.input_rank == 3
            axes = "shape (batch, length)" if flat else "the shape of the inputs without features"
            raise ValueError(
                f"`mask` of {self.name} must have {axes} = {tuple(shape[:-1])}. "
                f"Received: mask.shape={tuple(received)}"
            )

    def map_state(self, function, state, batch, features):
        """Applies a function of specification and value to every tensor of a state."""

        def checked(spec, part):
            part = part if hasattr(part, "shape") else np.asarray(part)
            expected, received = tuple(spec.shape), tuple(part.shape)
            if not compatible(received, expected):
                raise ValueError(
                    f"A state of {self.name} must have shape {expected}. "
                    f"Received: state.shape={received}"
                )
            return function(spec, part)

        spec = self.state_spec(batch, features)
        try:
            return map_parts(checked, spec, state)
        except (TypeError, ValueError) as error:
            if "Received: " in str(error):
                raise
            shapes = tree.map_structure(lambda part: tuple(part.shape), spec)
            raise ValueError(
                f"A state of {self.name} must be what `get_initial_state` returns, of shapes "
                f"{shapes}. Received: {type(state).__name__}"
            ) from error


def check_samples(shape, dtype, rank, features, name):
    """Raises a `ValueError` unless these are float inputs of so many axes and features.

    Args:
        shape: shape of the inputs.
        dtype: their dtype.
        rank: int. Axes that they must have.
        features: int or `None` for any known number.
        name: str. Whose inputs they are.
    """
    axes = ["length"] * (rank == 3) + [f"size_{i}" for i in range(1, rank - 1)] * (rank > 3)
    shape = tuple(shape)
    if len(shape) != rank:
        raise ValueError(
            f"`x` of {name} must have shape ({', '.join(['batch', *axes, 'features'])}). "
            f"Received: x.shape={shape}"
        )
    if shape[-1] is None or (features is not None and shape[-1] != features):
        expected = "a known number of" if features is None else features
        raise ValueError(
            f"`x` of {name} must have {expected} features on its last axis. "
            f"Received: x.shape={shape}"
        )
    if 0 in shape[1:]:
        raise ValueError(
            f"`x` of {name} must have at least one step and one feature. Received: x.shape={shape}"
        )
    if "float" not in keras.backend.standardize_dtype(dtype):
        raise ValueError(
            f"`x` of {name} must be floating point: cast integers, or embed token ids "
            f"first. Received: x.dtype={keras.backend.standardize_dtype(dtype)}"
        )
