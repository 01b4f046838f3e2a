import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.initializers.ring import MAX_PHASE
from keras_ssm.layers.mimo_layer import MIMOLayer
from keras_ssm.ops import pair
from keras_ssm.types import Pair, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class LRU(MIMOLayer):
    """Linear recurrent unit (LRU): one diagonal discrete-time system for all features together.

    The layer runs x_t = lambda x_(t-1) + gamma (B u_t), y_t = Re(C x_t) + D u_t, with
    lambda = exp(-exp(nu_log) + i exp(theta_log)) inside the unit circle whatever is trained, and
    gamma = exp(gamma_log). There are `state_dim` complex modes, none of them a conjugate of
    another, and no step dt. Norm, activation and gate of the paper belong to `SSMBlock`:
    `SSMBlock(LRU(), activation="gelu_tanh", gate="full_glu", norm="batch", prenorm=True,
    norm_momentum=0.99)`.

    `step_scale` r reads samples r times as far apart: lambda becomes lambda^r, and gamma is scaled
    by |1 - lambda^r| / |1 - lambda|, so that every mode answers to a constant as strongly as
    before.

    Weights, all real: `nu_log`, `theta_log`, `gamma_log` `(state_dim,)`, `B_real`, `B_imag`
    `(state_dim, features)`, `C_real`, `C_imag` `(features, state_dim)` (`(2, features,
    state_dim)` if bidirectional), `D` `(features,)`.

    Args:
        state_dim: int. Number N of complex modes. Defaults to `64`.
        r_min: float. Smallest initial |lambda|. Long memories need a narrow ring, such as 0.9 to
            0.999. Defaults to `0.0`.
        r_max: float. Largest initial |lambda|, at most 1. Defaults to `1.0`.
        max_phase: float. Largest initial angle of lambda, at most 2 pi; a small one leaves slow
            waves only. Defaults to `6.283185`.
        bidirectional: bool. Whether a second scan reads the sequence backwards, with its own C;
            both include the current sample. Such a layer has no state. Defaults to `False`.
        method: str. `"auto"`, `"chunked"` (a scan of blocks side by side), `"fft"` or
            `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Not used by the scan, which picks its own blocks.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right.
        initial_state: tensor `(batch, 2 * state_dim)`, real parts then imaginary parts.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state
        `(batch, 2 * state_dim)`.

    Raises:
        ValueError: unless `0 <= r_min < r_max <= 1` and `0 < max_phase <= 2 pi`; for an unknown
            `method`, integer or empty inputs, a mask or state of another shape, or a state asked
            of a bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.LRU(state_dim=16, r_min=0.9, r_max=0.999)
        x = np.random.default_rng(0).normal(size=(2, 100, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 100, 8), (2, 32)
        y_next, state = layer.step(x[:, 0], state)  # one more sample
        ```

    Reference:
        [LRU](https://arxiv.org/abs/2303.06349), sections 3.2 to 3.4 and appendix A.
    """

    slow_weights = ("nu_log", "theta_log", "gamma_log", "B_real", "B_imag")

    def __init__(
        self,
        state_dim: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = MAX_PHASE,
        bidirectional: bool = False,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            state_dim=state_dim,
            bidirectional=bidirectional,
            method=method,
            chunk_size=chunk_size,
            seed=seed,
            **kwargs,
        )
        initializers.ring(0, r_min, r_max, max_phase)  # checks the ranges
        self.r_min = r_min
        self.r_max = r_max
        self.max_phase = max_phase

    def build_system(self, features: int) -> None:
        N, H, rng = self.state_dim, features, self.make_rng()
        nu_log, theta_log, gamma_log = initializers.ring(
            N, self.r_min, self.r_max, self.max_phase, rng
        )
        self.nu_log = self.add_system_weight("nu_log", nu_log)
        self.theta_log = self.add_system_weight("theta_log", theta_log)
        self.gamma_log = self.add_system_weight("gamma_log", gamma_log)
        B = _complex_normal((N, H), rng) / np.sqrt(2 * H)
        C = _complex_normal((2, H, N) if self.bidirectional else (H, N), rng) / np.sqrt(N)
        self.B_real, self.B_imag = self.add_complex_weight("B", B)
        self.C_real, self.C_imag = self.add_complex_weight("C", C)
        self.add_skip(H, rng)

    def eigenvalues(self) -> Pair:
        """Returns the pair log lambda, `(state_dim,)`, of a `step_scale` of 1."""
        return -ops.exp(self.tensor(self.nu_log)), ops.exp(self.tensor(self.theta_log))

    def discrete_matrices(self) -> tuple[Pair, Tensor]:
        log_lambda = self.eigenvalues()
        log_dA = pair.scale(log_lambda, self.tensor(self.step_scale))
        change = _log_distance(log_dA) - _log_distance(log_lambda)
        gain = ops.exp(self.tensor(self.gamma_log) + change)[:, None]
        B = gain * self.tensor(self.B_real), gain * self.tensor(self.B_imag)
        return log_dA, ops.transpose(ops.concatenate(B, axis=0))

    def output_matrices(self) -> Tensor:
        C = pair.join((self.tensor(self.C_real), self.tensor(self.C_imag)))
        return C if self.bidirectional else C[None]

    def get_config(self):
        return {
            **super().get_config(),
            "r_min": self.r_min,
            "r_max": self.r_max,
            "max_phase": self.max_phase,
        }


def _complex_normal(shape, rng):
    """Complex numbers whose parts have unit variance."""
    real, imag = rng.standard_normal((2, *shape))
    return real + 1j * imag


def _log_distance(log_dA):
    """log |1 - dA|, of which differences between equal dA are exactly zero."""
    real, imag = pair.expm1(log_dA)
    return 0.5 * ops.log(real * real + imag * imag)
