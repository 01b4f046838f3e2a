import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_flags, check_number, check_positive
from keras_ssm.initializers.mamba import step_bias
from keras_ssm.layers.conv_mixer import stop_where_masked
from keras_ssm.layers.exact_layers import is_product, rms
from keras_ssm.layers.inference import applied, infer
from keras_ssm.layers.mamba_mixer import MambaMixer, auto_rank
from keras_ssm.ops import backend
from keras_ssm.ops.selective_scan import projected_scan, selective_scan, selective_step


@keras.saving.register_keras_serializable(package="keras_ssm")
class Mamba(MambaMixer):
    """Mamba: a state-space model whose steps and projections depend on the input (S6).

    With E inner features and N states for each of them,

        [x, z] = u W_in                          W_in (H, 2 E)
        x      = silu(conv(x))                   causal, each feature with its own kernel
        [r, B, C] = x W_x                        W_x (E, R + 2 N)
        dt     = softplus(r W_dt + dt_bias)      W_dt (R, E)
        h_t    = exp(dt_t A) h_(t-1) + dt_t B_t x_t,     A = -exp(A_log)
        y_t    = h_t C_t + D x_t
        output = (y silu(z)) W_out               W_out (E, H)

    The state is a dict: `conv` `(batch, conv_width - 1, E)`, the last inputs of the convolution,
    oldest first, and `ssm` `(batch, E, N)`. Masked steps, at either end or between others, leave
    it as it is. `A_log`, `D`, `dt_bias` and the recurrence are float32 under every policy.

    Weights: `in_proj`, `conv_kernel` `(conv_width, E)`, `conv_bias` `(E,)`, `x_proj`, `dt_proj`,
    `dt_bias` `(E,)`, `A_log` `(E, N)`, `D` `(E,)`, `out_proj`.

    Args:
        state_dim: int. N. Defaults to `16`.
        expand: float. E over the number of features. Defaults to `2`.
        inner_dim: int or `None`. E, in place of `expand`.
        conv_width: int. Samples that the convolution sees, at least 2. Defaults to `4`.
        dt_rank: int or `"auto"`. R; `"auto"` is a sixteenth of the features, rounded up.
        conv_bias: bool. Whether the convolution has a bias. Defaults to `True`.
        use_bias: bool. Whether `in_proj` and `out_proj` have biases. Defaults to `False`.
        norm_bcdt: bool. Whether r, B and C are divided by their root mean square, as in
            FalconMamba. Defaults to `False`.
        norm_epsilon: float. Added to these mean squares. Defaults to `1e-6`.
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
        ValueError: for arguments out of range, and inputs, masks or states of another shape.

    Example:
        ```python
        y = keras_ssm.layers.Mamba(state_dim=8)(np.zeros((2, 100, 16), "float32"))  # (2, 100, 16)
        ```

    Reference:
        [Mamba](https://arxiv.org/abs/2312.00752), section 3.
    """

    lora_layers = ("in_proj", "x_proj", "out_proj")
    undecayed_weights = ("A_log", "D", "dt_bias", "conv_bias")

    def __init__(
        self,
        state_dim: int = 16,
        expand: float = 2,
        inner_dim: int | None = None,
        conv_width: int = 4,
        dt_rank: int | str = "auto",
        conv_bias: bool = True,
        use_bias: bool = False,
        norm_bcdt: bool = False,
        norm_epsilon: float = 1e-6,
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
        if dt_rank != "auto":
            check_positive(dt_rank=dt_rank)
        check_flags(norm_bcdt=norm_bcdt)
        check_number("norm_epsilon", norm_epsilon, low=0)
        self.dt_rank = dt_rank
        self.norm_bcdt = norm_bcdt
        self.norm_epsilon = norm_epsilon

    def conv_channels(self, features):
        """Features of the convolution."""
        return self.inner_features(features)

    def ssm_shape(self, features):
        """Shape of the recurrence's state of one row."""
        return (self.inner_features(features), self.state_dim)

    def build_system(self, features):
        inner, states = self.inner_features(features), self.state_dim
        self.rank_of_steps = auto_rank(features) if self.dt_rank == "auto" else self.dt_rank
        self.build_projections(features, 2 * inner, inner)
        self.x_proj = self.add_dense("x_proj", inner, self.rank_of_steps + 2 * states, False)
        self.dt_proj = self.add_dense("dt_proj", self.rank_of_steps, inner, False)
        steps = (self.dt_min, self.dt_max, self.dt_floor, self.rng)
        self.dt_bias = self.add_system_weight("dt_bias", step_bias(inner, *steps))
        A = np.tile(np.arange(1.0, states + 1), (inner, 1))
        self.A_log = self.add_system_weight("A_log", np.log(A))
        self.D = self.add_system_weight("D", np.ones(inner))

    def split(self, projected):
        x, gate = ops.split(projected, 2, axis=-1)
        return gate, x, None

    def _selected(self, x, apply):
        """What the input chooses: the steps before their projection, B and C."""
        sizes = self.rank_of_steps, self.state_dim, self.state_dim
        parts = backend.split(apply(self.x_proj, x), sizes)
        if self.norm_bcdt:
            parts = [rms(self.exact(part), self.norm_epsilon) for part in parts]
        low, B, C = parts
        return ops.cast(low, self.compute_dtype), self.exact(B), self.exact(C)

    def _step_sizes(self, low, apply):
        return ops.softplus(self.exact(apply(self.dt_proj, low)) + self.tensor(self.dt_bias))

    def _system(self):
        return -ops.exp(self.tensor(self.A_log)), self.tensor(self.D)

    def recur(self, x, rest, mask, state):
        low, B, C = self._selected(x, applied(None))
        A, D = self._system()
        if is_product(self.dt_proj) and self.compute_dtype == self.system_dtype:
            kernel, bias = ops.convert_to_tensor(self.dt_proj.kernel), self.tensor(self.dt_bias)
            return projected_scan(x, low, kernel, bias, A, B, C, D, mask, state)
        dt = stop_where_masked(self._step_sizes(low, applied(None)), mask)
        return selective_scan(self.exact(x), dt, A, B, C, D, state)

    def recur_step(self, x, rest, state):
        low, B, C = self._selected(x, infer)
        A, D = self._system()
        return selective_step(self.exact(x), self._step_sizes(low, infer), A, B, C, D, state)

    def get_config(self):
        return {
            **super().get_config(),
            "dt_rank": self.dt_rank,
            "norm_bcdt": self.norm_bcdt,
            "norm_epsilon": self.norm_epsilon,
        }
