import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_flags, check_number, check_positive
from keras_ssm.initializers.mamba import step_bias
from keras_ssm.layers.conv_mixer import joined, last_axis_as, stop_where_masked
from keras_ssm.layers.exact_layers import rms
from keras_ssm.layers.mamba_mixer import MambaMixer
from keras_ssm.ops import backend
from keras_ssm.ops.ssd import ssd, ssd_step


@keras.saving.register_keras_serializable(package="keras_ssm")
class Mamba2(MambaMixer):
    """Mamba-2: heads that share one decay, read and written by what the input chooses (SSD).

    With E inner features in heads of P, G groups of heads and N states for each feature,

        [z, x, B, C, dt] = u W_in                W_in (H, 2 E + 2 G N + E / P)
        [x, B, C] = silu(conv([x, B, C]))        causal, each feature with its own kernel
        dt     = clip(softplus(dt + dt_bias), dt_limit)
        S_t    = exp(dt_t A) S_(t-1) + dt_t x_t B_t,     A = -exp(A_log), one for each head
        y_t    = S_t C_t + D x_t
        output = norm(y silu(z)) W_out           W_out (E, H)

    where the norm divides by the root mean square over each group and multiplies by `norm_scale`.
    A sequence is evaluated in chunks of batched matmuls.

    The state is a dict: `conv` `(batch, conv_width - 1, E + 2 G N)`, the last inputs of the
    convolution, oldest first, and `ssm` `(batch, heads, P, N)`. Masked steps, at either end or
    between others, leave it as it is. `A_log`, `D`, `dt_bias` and the recurrence are float32
    under every policy.

    Weights: `in_proj`, `conv_kernel` `(conv_width, E + 2 G N)`, `conv_bias`, `dt_bias` `(heads,)`,
    `A_log` `(heads,)`, `D` `(heads,)` or `(heads, P)`, `norm_scale` `(E,)`, `out_proj`.

    Args:
        state_dim: int. N. Defaults to `128`.
        expand: float. E over the number of features. Defaults to `2`.
        head_dim: int. P, which divides E. Defaults to `64`.
        num_groups: int. G, which divides the number of heads. Defaults to `1`.
        inner_dim: int or `None`. E, in place of `expand`.
        conv_width: int. Samples that the convolution sees, at least 2. Defaults to `4`.
        chunk_size: int or `None` (64). Changes speed and memory only.
        dt_limit: pair of floats or `None`. Bounds of dt. Defaults to `None`.
        norm_before_gate: bool. Whether the gate follows the norm, norm(y) silu(z), in place of
            preceding it. Defaults to `False`.
        gated_norm: bool. Whether there is a norm at all. Defaults to `True`.
        D_per_feature: bool. Whether each feature of a head has a skip of its own. Defaults to
            `False`.
        conv_bias: bool. Whether the convolution has a bias. Defaults to `True`.
        use_bias: bool. Whether `in_proj` and `out_proj` have biases. Defaults to `False`.
        norm_epsilon: float. Added to the mean squares. Defaults to `1e-5`.
        A_range: pair of floats. -A starts uniformly between them. Defaults to `(1, 16)`.
        dt_min: float. Smallest initial step. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        dt_floor: float. No initial step is smaller. Defaults to `1e-4`.
        residual_layers: int. Residual branches of the whole model: the initial `out_proj` is
            divided by its root. Defaults to `1`.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid.
        initial_state: dict of tensors, as `get_initial_state` returns it.
        return_state: bool. Whether the state after the last valid sample is returned as well.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state.

    Raises:
        ValueError: for arguments out of range or that do not divide each other, and inputs, masks
            or states of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.Mamba2(state_dim=16, head_dim=8)
        y = layer(np.zeros((2, 100, 16), "float32"))  # (2, 100, 16)
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), sections 6 and 7.
    """

    undecayed_weights = ("A_log", "D", "dt_bias", "conv_bias", "norm_scale")

    def __init__(
        self,
        state_dim: int = 128,
        expand: float = 2,
        head_dim: int = 64,
        num_groups: int = 1,
        inner_dim: int | None = None,
        conv_width: int = 4,
        chunk_size: int | None = None,
        dt_limit: tuple[float, float] | None = None,
        norm_before_gate: bool = False,
        gated_norm: bool = True,
        D_per_feature: bool = False,
        conv_bias: bool = True,
        use_bias: bool = False,
        norm_epsilon: float = 1e-5,
        A_range: tuple[float, float] = (1, 16),
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_floor: float = 1e-4,
        residual_layers: int = 1,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            state_dim=state_dim,
            expand=expand,
            inner_dim=inner_dim,
            conv_width=conv_width,
            conv_bias=conv_bias,
            use_bias=use_bias,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_floor,
            residual_layers=residual_layers,
            seed=seed,
            **kwargs,
        )
        check_positive(head_dim=head_dim, num_groups=num_groups)
        if chunk_size is not None:
            check_positive(chunk_size=chunk_size)
        check_flags(norm_before_gate=norm_before_gate, gated_norm=gated_norm)
        check_flags(D_per_feature=D_per_feature)
        check_number("norm_epsilon", norm_epsilon, low=0)
        _check_pair("A_range", A_range)
        if A_range[0] == 0:
            raise ValueError(f"`A_range` must begin above 0. Received: A_range={A_range!r}")
        if dt_limit is not None:
            _check_pair("dt_limit", dt_limit)
        self.head_dim = head_dim
        self.num_groups = num_groups
        self.chunk_size = chunk_size
        self.dt_limit = dt_limit
        self.norm_before_gate = norm_before_gate
        self.gated_norm = gated_norm
        self.D_per_feature = D_per_feature
        self.norm_epsilon = norm_epsilon
        self.A_range = A_range

    def heads(self, features):
        """Number of heads."""
        return self.inner_features(features) // self.head_dim

    def conv_channels(self, features):
        """Features of the convolution."""
        return self.inner_features(features) + 2 * self.num_groups * self.state_dim

    def ssm_shape(self, features):
        """Shape of the recurrence's state of one row."""
        return (self.heads(features), self.head_dim, self.state_dim)

    def build_system(self, features):
        inner, heads = self.inner_features(features), self.heads(features)
        if inner % self.head_dim or heads % self.num_groups:
            raise ValueError(
                "`head_dim` must divide the inner features, and `num_groups` the heads. Received: "
                f"head_dim={self.head_dim}, num_groups={self.num_groups}, {inner} inner features"
            )
        channels = self.conv_channels(features)
        self.build_projections(features, inner + channels + heads, inner)
        steps = (self.dt_min, self.dt_max, self.dt_floor, self.rng)
        self.dt_bias = self.add_system_weight("dt_bias", step_bias(heads, *steps))
        A = self.rng.uniform(*self.A_range, size=heads)
        self.A_log = self.add_system_weight("A_log", np.log(A))
        D = np.ones((heads, self.head_dim) if self.D_per_feature else heads)
        self.D = self.add_system_weight("D", D)
        if self.gated_norm:
            self.norm_scale = self.add_system_weight("norm_scale", np.ones(inner))

    def split(self, projected):
        features = self.features
        inner, channels = self.inner_features(features), self.conv_channels(features)
        return backend.split(projected, (inner, channels, self.heads(features)))

    def _selected(self, convolved, dt):
        """x in heads, dt, and B and C in groups."""
        inner = self.inner_features(self.features)
        group = self.num_groups * self.state_dim
        x, B, C = backend.split(self.exact(convolved), (inner, group, group))
        dt = ops.softplus(self.exact(dt) + self.tensor(self.dt_bias))
        if self.dt_limit is not None:
            low, high = self.dt_limit
            dt = backend.minimum(backend.maximum(dt, low), high)
        by_group = (self.num_groups, self.state_dim)
        heads = (self.heads(self.features), self.head_dim)
        return (
            last_axis_as(x, heads),
            dt,
            -ops.exp(self.tensor(self.A_log)),
            last_axis_as(B, by_group),
            last_axis_as(C, by_group),
            self._skip(),
        )

    def _skip(self):
        D = self.tensor(self.D)
        return D if self.D_per_feature else D[:, None]

    def recur(self, convolved, dt, mask, state):
        x, dt, *system = self._selected(convolved, dt)
        dt = stop_where_masked(dt, mask)
        y, state = ssd(x, dt, *system, initial_state=state, chunk_size=self.chunk_size)
        return joined(y), state

    def recur_step(self, convolved, dt, state):
        y, state = ssd_step(*self._selected(convolved, dt), state)
        return joined(y), state

    def read_out(self, y, gate):
        """Norm and gate in float32; the result in the compute dtype."""
        gate = self.exact(gate)
        if not self.gated_norm:
            return ops.cast(backend.gated(y, gate), self.compute_dtype)
        y = y if self.norm_before_gate else backend.gated(y, gate)
        groups = last_axis_as(y, (self.num_groups, y.shape[-1] // self.num_groups))
        y = joined(rms(groups, self.norm_epsilon)) * self.tensor(self.norm_scale)
        y = backend.gated(y, gate) if self.norm_before_gate else y
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "num_groups": self.num_groups,
            "chunk_size": self.chunk_size,
            "dt_limit": self.dt_limit,
            "norm_before_gate": self.norm_before_gate,
            "gated_norm": self.gated_norm,
            "D_per_feature": self.D_per_feature,
            "norm_epsilon": self.norm_epsilon,
            "A_range": self.A_range,
        }


def _check_pair(name, pair):
    try:
        low, high = pair
    except (TypeError, ValueError):
        low, high = None, None
    numbers = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (low, high))
    if not numbers or not 0 <= low <= high:
        raise ValueError(
            f"`{name}` must be a pair of numbers, 0 <= low <= high. Received: {name}={pair!r}"
        )
