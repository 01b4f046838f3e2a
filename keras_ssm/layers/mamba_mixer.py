import math

from keras import ops

from keras_ssm.checks import check_number, check_positive
from keras_ssm.layers.conv_mixer import ConvMixer
from keras_ssm.ops import backend


class MambaMixer(ConvMixer):
    """What `Mamba` and `Mamba2` share: arguments, their number of inner features, a gate."""

    def __init__(
        self,
        state_dim: int,
        expand: float,
        inner_dim: int | None,
        conv_width: int,
        conv_bias: bool,
        use_bias: bool,
        dt_min: float,
        dt_max: float,
        dt_floor: float,
        residual_layers: int,
        seed: int | None,
        **kwargs,
    ):
        steps = dt_min, dt_max, dt_floor
        super().__init__(conv_width, conv_bias, use_bias, *steps, residual_layers, seed, **kwargs)
        check_positive(state_dim=state_dim)
        if inner_dim is not None:
            check_positive(inner_dim=inner_dim)
        check_number("expand", expand, low=0)
        self.state_dim = state_dim
        self.expand = expand
        self.given_inner_dim = inner_dim

    def inner_features(self, features):
        """Features between the two projections."""
        inner = self.given_inner_dim or round(self.expand * features)
        if inner < 1:
            raise ValueError(
                f"`expand` must leave at least one of {features} features. "
                f"Received: expand={self.expand}"
            )
        return inner

    def read_out(self, y, gate):
        """The recurrence's output times its gate, in the compute dtype."""
        return backend.gated(ops.cast(y, self.compute_dtype), gate)

    def get_config(self):
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "expand": self.expand,
            "inner_dim": self.given_inner_dim,
        }


def auto_rank(features):
    """The rank of the steps' projection in published models."""
    return math.ceil(features / 16)
