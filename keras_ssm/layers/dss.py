import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.layers.dss_softmax import EPSILON, Softmax
from keras_ssm.layers.siso_layer import SISOLayer
from keras_ssm.ops import backend, pair
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.diagonal_bank import DiagonalBank
from keras_ssm.ops.exporting import known
from keras_ssm.ops.growing_modes import growing_chunked
from keras_ssm.ops.powers import kernel
from keras_ssm.types import State, Tensor

VARIANTS = ("softmax", "exp", "exp-re-im", "exp-no-scale", "clip", "clip-no-scale")
INITS = ("hippo_skew", "randn", "log_normal")

# Guards of the published code: of a division, and of the real part under "clip".
LARGEST_REAL_PART = 1e-4


@keras.saving.register_keras_serializable(package="keras_ssm")
class DSS(Softmax, SISOLayer):
    """Diagonal state-space layer with a row-normalised kernel (DSS).

    All features share the eigenvalues A; each has its own step and its own C:

    | variant | kernel K[l], z = dt A, L the length of the sequence |
    |---|---|
    | `"softmax"` | Re sum C (e^z - 1) / (A (e^(z L) - 1)) e^(z l) |
    | `"exp"` | Re sum C (e^z - 1) / A e^(z l), A = -exp(log_A_real) + i A_imag |
    | `"exp-re-im"` | the same, A = -exp(log_A_real) + i exp(log_A_imag) |
    | `"clip"` | the same, A = min(A_real, 1e-4) + i A_imag |
    | `"exp-no-scale"`, `"clip-no-scale"` | Re sum C e^(z l) |

    There are `state_dim` complex modes, none of them a conjugate of another. Under softmax the
    kernel of a mode adds up to 1 (times C / A), whether it decays or, with a positive real part,
    grows; it depends on the length, so padding a sequence changes its outputs.

    Weights, all real: `log_dt` `(features, 2)` (for the real and for the imaginary part of z;
    `(features, 1)` without `sep_dt_re_im`), `A_real` or `log_A_real`, `A_imag` or `log_A_imag`
    `(state_dim,)`, `C_real`, `C_imag` `(channels, features, state_dim)` (twice the channels if
    bidirectional), `D` `(channels, features)`.

    Args:
        state_dim: int. Number N of complex modes. Defaults to `64`.
        variant: str. See the table. Defaults to `"softmax"`.
        init: str. `"hippo_skew"` (eigenvalues of the skew part of HiPPO-LegS), `"randn"`
            (complex normal, some of them growing: for softmax and clip) or `"log_normal"` (as
            gated state spaces have it: what is trained of A is normal, for exp and exp-re-im).
            Defaults to `"hippo_skew"`.
        dt_min: float. Smallest initial step, in units of time per sample. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        sep_dt_re_im: bool. Whether the real and the imaginary part of A have steps of their
            own. Defaults to `True`.
        bidirectional: bool. Whether later samples contribute as well, through a second set of
            C; the current sample counts once. Such a layer has no state. Defaults to `False`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        max_kernel_length: int or `None`. Longest kernel; samples further away do not
            contribute. Such a layer convolves (`"fft"`) and has no state. Defaults to `None`.
        softmax_length: int or `None`. Length over which the softmax normalises, instead of the
            length of each sequence: with it, a softmax layer has states and steps, for sequences
            up to this length. Defaults to `None`.
        fixed_dt: float or `None`. The step of every feature, which then does not train: there is
            no `log_dt`, and `dt_min`, `dt_max` and `sep_dt_re_im` do not matter. Gated state
            spaces have 1. Defaults to `None`: each feature trains its own.
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right, except under softmax.
        initial_state: tensor `(batch, features, 2 * state_dim)`, real parts then imaginary
            parts.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, 2 * state_dim)`.

    Raises:
        ValueError: for an unknown `variant`, `init` or `method`, a pair of them that does not
            go together, integer or empty inputs, a mask or state of another shape, or a state
            asked of a bidirectional layer or of a softmax without a length.

    Example:
        ```python
        layer = keras_ssm.layers.DSS(state_dim=16, variant="exp")
        x = np.random.default_rng(0).normal(size=(2, 200, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 200, 8), (2, 8, 32)

        softmax = keras_ssm.layers.DSS(state_dim=16, softmax_length=200)
        y, state = softmax(x[:, :100], return_state=True)
        y_next, state = softmax.step(x[:, 100], state)
        ```

    Reference:
        - [DSS](https://arxiv.org/abs/2203.14343), proposition 1 and section 3.2. As published,
          the gradient of a growing mode does not see its shift to the end of the kernel.
        - [GSS](https://arxiv.org/abs/2206.13947), section 3.1 (`fixed_dt=1.0`, `"log_normal"`).
        - [SLiCE/DSS code](https://github.com/ag1988/dss) for the further variants.
    """

    def __init__(
        self,
        state_dim: int = 64,
        variant: str = "softmax",
        init: str = "hippo_skew",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        sep_dt_re_im: bool = True,
        bidirectional: bool = False,
        channels: int = 1,
        max_kernel_length: int | None = None,
        softmax_length: int | None = None,
        fixed_dt: float | None = None,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
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
        check_flags(sep_dt_re_im=sep_dt_re_im)
        check_choice("variant", variant, VARIANTS)
        check_choice("init", init, INITS)
        initializers.log_uniform_step((), dt_min, dt_max)  # checks the range
        if init == "randn" and variant.startswith("exp"):
            raise ValueError(
                "init='randn' has eigenvalues with a positive real part, which the variants "
                f"'exp...' cannot hold: take 'softmax' or 'clip'. Received: variant={variant!r}"
            )
        if init == "log_normal" and variant not in ("exp", "exp-re-im"):
            raise ValueError(
                "init='log_normal' goes with variant='exp' or 'exp-re-im'. "
                f"Received: variant={variant!r}"
            )
        if fixed_dt is not None:
            check_number("fixed_dt", fixed_dt)
            if fixed_dt <= 0:
                raise ValueError(f"`fixed_dt` must be positive. Received: fixed_dt={fixed_dt}")
        if softmax_length is not None:
            check_positive(softmax_length=softmax_length)
            if variant != "softmax" or max_kernel_length is not None:
                raise ValueError(
                    "`softmax_length` goes with variant='softmax', without `max_kernel_length`. "
                    f"Received: softmax_length={softmax_length}, variant={variant!r}, "
                    f"max_kernel_length={max_kernel_length}"
                )
        self.variant = variant
        self.init = init
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.sep_dt_re_im = sep_dt_re_im
        self.softmax_length = softmax_length
        self.fixed_dt = fixed_dt

    def build_bank(self, features, rng):
        if self.fixed_dt is None:
            shape = (features, 2 if self.sep_dt_re_im else 1)
            log_dt = initializers.log_uniform_step(shape, self.dt_min, self.dt_max, rng)
            self.log_dt = self.add_system_weight("log_dt", log_dt)
        if self.init == "hippo_skew":
            A = initializers.skew_hippo(self.state_dim)
        elif self.init == "log_normal":
            log_real, imag = rng.standard_normal((2, self.state_dim))
            imag = np.exp(imag) if self.variant == "exp-re-im" else imag
            A = -np.exp(log_real) + 1j * imag
        else:
            real, imag = rng.standard_normal((2, self.state_dim)) * np.sqrt(0.5)
            A = real + 1j * imag
        if self.variant.startswith("exp"):
            self.log_A_real = self.add_system_weight("log_A_real", np.log(-A.real))
        else:
            self.A_real = self.add_system_weight("A_real", A.real)
        if self.variant == "exp-re-im":
            self.log_A_imag = self.add_system_weight("log_A_imag", np.log(A.imag))
        else:
            self.A_imag = self.add_system_weight("A_imag", A.imag)
        # Unit variance of each part, as published.
        C = np.sqrt(2.0) * self.draw_C((features, self.state_dim), rng)
        self.C_real, self.C_imag = self.add_complex_weight("C", C)

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (features, 2 * self.state_dim)

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """Returns the pair A, `(state_dim,)`."""
        if self.variant.startswith("exp"):
            real = -ops.exp(self.tensor(self.log_A_real))
        elif self.variant.startswith("clip"):
            real = backend.minimum(self.tensor(self.A_real), LARGEST_REAL_PART)
        else:
            real = self.tensor(self.A_real)
        if self.variant == "exp-re-im":
            return real, ops.exp(self.tensor(self.log_A_imag))
        return real, self.tensor(self.A_imag)

    def bank(self, length=None):
        A, z, C = self._continuous()
        if self.variant != "softmax":
            ones = ops.ones_like(z[0]), ops.zeros_like(z[0])
            dB = ones if self.variant.endswith("no-scale") else self._zoh_input(A, z)
            return DiagonalBank(z, dB, pair.scale(C, 0.5))
        length = ops.cast(self._normalised_over(length), z[0].dtype)
        growing, decaying, weights = self._softmax(A, z, length)
        # A growing mode reaches e^(z (L - 1)). Half of that factor is taken from each side. As
        # published, no gradient flows through it.
        still = tuple(map(ops.stop_gradient, decaying))
        half_decay = pair.exp(pair.scale(still, 0.5 * (length - 1.0)))
        scale = ops.where(growing, half_decay[0], 1.0), ops.where(growing, half_decay[1], 0.0)
        dB, C = pair.multiply(weights, scale), pair.scale(pair.multiply(C, scale), 0.5)
        return DiagonalBank(z, dB, C, normal=False)

    def sequence_dtype(self, x: Tensor) -> str:
        return self.system_dtype if self.variant == "softmax" else super().sequence_dtype(x)

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        length = known(x.shape[1])
        in_chunks = self.chosen_method(length) == "chunked"
        in_stream = initial_state is not None or return_state
        if self.variant != "softmax" or in_stream or not in_chunks:
            return super().evaluate(x, mask, initial_state, return_state)
        if length is None:  # chunks of growing modes are counted from the end
            return self._convolve(x, None, self.skip_weight(), None, None, False)
        decaying, growing = self._branches(self._normalised_over(length), length)
        y, _ = chunked(
            x,
            decaying,
            bidirectional=self.bidirectional,
            chunk_size=self.chunk_size,
            D=self.skip_weight(),
        )
        log_decay, C = growing
        channels = self.channels
        past = tuple(part[:channels] for part in C)
        y = y + growing_chunked(x, log_decay, past, self.chunk_size)
        if self.bidirectional:
            future = tuple(part[channels:] for part in C)
            later = growing_chunked(ops.flip(x, axis=1), log_decay, future, self.chunk_size)
            later = ops.flip(later, axis=1)[:, 1:]
            y = y + ops.pad(later, [(0, 0), (0, 1), (0, 0)])
        return y, None

    def needs_transform(self, length: int | None) -> bool:
        return super().needs_transform(length) or (self.variant == "softmax" and length is None)

    def convolution_kernel(self, bank, length):
        if self.variant != "softmax":
            return super().convolution_kernel(bank, length)
        decaying, (log_decay, C) = self._branches(self._normalised_over(length), length)
        ones = ops.ones_like(log_decay[0]), ops.zeros_like(log_decay[0])
        backwards = kernel(DiagonalBank(log_decay, ones, C), length)
        return kernel(decaying, length) + ops.flip(backwards, axis=-1)

    def full_kernel(self, length: int) -> Tensor:
        bank = None if self.variant == "softmax" else self.bank()
        return self.truncated_kernel(length, lambda steps: self.convolution_kernel(bank, steps))

    def get_config(self):
        return {
            **super().get_config(),
            "variant": self.variant,
            "init": self.init,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "sep_dt_re_im": self.sep_dt_re_im,
            "softmax_length": self.softmax_length,
            "fixed_dt": self.fixed_dt,
        }

    def stateless_because(self):
        reason = super().stateless_because()
        if reason is not None or self.variant != "softmax" or self.softmax_length is not None:
            return reason
        return (
            "normalises its kernel by the length of each sequence, so it has no state: give the "
            "length as `softmax_length`, or take variant='exp'. Received: softmax_length=None"
        )

    def _continuous(self):
        """The pairs A `(state_dim,)`, z = dt A `(features, state_dim)`, and C."""
        A = self.eigenvalues()
        if self.fixed_dt is None:
            dt = ops.exp(self.tensor(self.log_dt))
        else:
            dt = ops.full((self.features, 1), self.fixed_dt, self.system_dtype)
        dt = dt * self.tensor(self.step_scale)
        z = A[0] * dt[:, :1], A[1] * dt[:, -1:]
        return A, z, (self.tensor(self.C_real), self.tensor(self.C_imag))

    def _zoh_input(self, A, z):
        """(e^z - 1) / A, guarded as published."""
        square = backend.maximum(A[0] * A[0] + A[1] * A[1], EPSILON)
        inverse = A[0] / square, -A[1] / square
        return pair.multiply(pair.expm1(z), inverse)
