import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.initializers.diagonal import INITS
from keras_ssm.layers.siso_layer import SISOLayer
from keras_ssm.ops.diagonal_bank import DiagonalBank
from keras_ssm.ops.discretize import RULES

DT_TRANSFORMS = ("exp", "softplus")


@keras.saving.register_keras_serializable(package="keras_ssm")
class S4D(SISOLayer):
    """Diagonal state-space layer (S4D): one diagonal system for each feature.

    Every feature runs x' = A x + B u, y = 2 Re(C x) + D u with a diagonal A of its own, stored
    as one of each conjugate pair. The layer is the system and its skip D alone: activation,
    mixing of the features and normalisation belong to `SSMBlock`.

    Weights, all real: `log_dt` `(features, 1)` (`inv_dt` under softplus), `log_A_real`, `A_imag`,
    `B_real`, `B_imag` `(num_ssm, state_dim / 2)`, `C_real`, `C_imag`
    `(channels, features, state_dim / 2)` (twice the channels if bidirectional), `D`
    `(channels, features)`; A = -exp(log_A_real) + i A_imag.
    They, the state and the arithmetic are float32 under every dtype policy (float64 under
    float64).

    Args:
        state_dim: int. Full, even size N of the state; N/2 conjugate pairs are kept.
            Defaults to `64`.
        init: str. Initial A and B: `"legs"`, `"lin"`, `"inv"`, `"inv2"`, `"quad"`, `"real"`,
            `"rand"`, `"legsd"`, `"fourier"`, `"foud"`, or a mixture `"diag"`, `"hippo"`,
            `"all"`; see `keras_ssm.initializers.diagonal`. Defaults to `"legs"`.
        discretization: str. `"zoh"` or `"bilinear"`. Defaults to `"zoh"`.
        dt_min: float. Smallest initial step, in units of time per sample. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        dt_tie: bool. Whether the modes of a feature share one step. Defaults to `True`.
        bidirectional: bool. Whether later samples contribute as well, through a second set of
            C; the current sample counts once. Such a layer has no state. Defaults to `False`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        num_ssm: int or `None`. Number of different (A, B), of which feature h uses number
            `h % num_ssm`. It must divide the features. Defaults to `None`: one a feature.
        bandlimit: float or `None`. Modes faster than this fraction of the Nyquist frequency
            are silenced. Defaults to `None`.
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        seed: int or `None`. Seed of the initial weights.
        max_kernel_length: int or `None`. If set, samples further away than this do not
            contribute, as in models trained with a truncated kernel. Such a layer convolves
            (`"fft"`) and has no state. Defaults to `None`.
        dt_transform: str. `"exp"` (dt = exp(log_dt)) or `"softplus"` (dt = softplus(inv_dt)):
            what is trained, as published models have it. Defaults to `"exp"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right.
        initial_state: tensor `(batch, features, state_dim)`, real parts then imaginary parts.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, state_dim)`.

    Raises:
        ValueError: for an odd or non-positive `state_dim`, an unknown `init`, `discretization`
            or `method`, integer or empty inputs, a mask or state of another shape, or a state
            asked of a bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.S4D(state_dim=64)
        x = np.random.default_rng(0).normal(size=(2, 1000, 16)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 1000, 16), (2, 16, 64)

        system = layer.discretize()
        y_next, state = layer.step(x[:, 0], state, system)  # one more sample
        ```

    Reference:
        - [S4D](https://arxiv.org/abs/2206.11893), equations 3 to 9.
        - [S4](https://arxiv.org/abs/2111.00396) for the recurrent and convolutional views.
    """

    def __init__(
        self,
        state_dim: int = 64,
        init: str = "legs",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_tie: bool = True,
        bidirectional: bool = False,
        channels: int = 1,
        num_ssm: int | None = None,
        bandlimit: float | None = None,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        max_kernel_length: int | None = None,
        dt_transform: str = "exp",
        **kwargs,
    ):
        super().__init__(
            state_dim=state_dim,
            bidirectional=bidirectional,
            channels=channels,
            max_kernel_length=max_kernel_length,
            method=method,
            chunk_size=chunk_size,
            seed=seed,
            **kwargs,
        )
        if state_dim % 2:
            raise ValueError(f"`state_dim` must be even. Received: state_dim={state_dim}")
        check_flags(dt_tie=dt_tie)
        check_choice("init", init, INITS)
        check_choice("discretization", discretization, RULES)
        check_choice("dt_transform", dt_transform, DT_TRANSFORMS)
        initializers.log_uniform_step((), dt_min, dt_max)  # checks the range
        if num_ssm is not None:
            check_positive(num_ssm=num_ssm)
        if bandlimit is not None:
            check_number("bandlimit", bandlimit)
            if bandlimit <= 0:
                raise ValueError(f"`bandlimit` must be positive. Received: bandlimit={bandlimit}")
        self.init = init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.dt_tie = dt_tie
        self.num_ssm = num_ssm
        self.bandlimit = bandlimit
        self.dt_transform = dt_transform

    @property
    def modes(self) -> int:
        """Number of eigenvalues that are stored for a feature."""
        return self.state_dim // 2

    def build_bank(self, features, rng):
        copies = self.num_ssm or features
        if features % copies:
            raise ValueError(
                f"`num_ssm` must divide the features of the input. "
                f"Received: num_ssm={copies}, features={features}"
            )
        shape = (features, 1 if self.dt_tie else self.modes)
        log_dt = initializers.log_uniform_step(shape, self.dt_min, self.dt_max, rng)
        if self.dt_transform == "exp":
            self.log_dt = self.add_system_weight("log_dt", log_dt)
        else:
            self.inv_dt = self.add_system_weight("inv_dt", np.log(np.expm1(np.exp(log_dt))))
        A, B, C = self.initial_system(features, copies, rng)
        self.log_A_real = self.add_system_weight("log_A_real", np.log(-A.real))
        self.A_imag = self.add_system_weight("A_imag", A.imag)
        self.B_real, self.B_imag = self.add_complex_weight("B", B)
        self.C_real, self.C_imag = self.add_complex_weight("C", C)

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (features, 2 * self.modes)

    def initial_system(self, features, copies, rng):
        """Initial A, B `(copies, modes)` and C `(channels, features, modes)`, complex."""
        A, B = initializers.diagonal(self.init, self.state_dim, copies, rng)
        return A, B, self.draw_C((features, self.modes), rng)

    def bank(self, length=None):
        dt, A, B, C = self.continuous_system()
        log_dA, dB = RULES[self.discretization](A, B, dt)
        return DiagonalBank(log_dA, dB, C)

    def continuous_system(self):
        """Returns dt `(features, 1 or modes)` and the pairs A, B, C, one for each feature."""
        tensor = self.tensor
        A = -ops.exp(tensor(self.log_A_real)), tensor(self.A_imag)
        A, B = self.tiled(A), self.tiled((tensor(self.B_real), tensor(self.B_imag)))
        C = tensor(self.C_real), tensor(self.C_imag)
        if self.dt_transform == "exp":
            dt = ops.exp(tensor(self.log_dt))
        else:
            dt = ops.softplus(tensor(self.inv_dt))
        if self.bandlimit is not None:
            # Relative to the samples the layer was trained on: step_scale does not enter.
            in_band = dt * ops.abs(A[1]) / (2 * np.pi) < 0.5 * self.bandlimit
            C = tuple(ops.where(in_band, part, ops.zeros_like(part)) for part in C)
        return dt * tensor(self.step_scale), A, B, C

    def tiled(self, p):
        """A pair `(copies, modes)` as `(features, modes)`: feature h has copy h mod copies."""
        repeats = self.features // p[0].shape[0]
        if repeats == 1:
            return p
        return tuple(ops.tile(part, (repeats, 1)) for part in p)

    def get_config(self):
        return {
            **super().get_config(),
            "init": self.init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "dt_tie": self.dt_tie,
            "num_ssm": self.num_ssm,
            "bandlimit": self.bandlimit,
            "dt_transform": self.dt_transform,
        }
