import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.initializers.diagonal import INITS
from keras_ssm.layers.ssm_layer import DiscreteSystem, SSMLayer, check_positive
from keras_ssm.ops import pair
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.discretize import RULES
from keras_ssm.ops.fft_conv import fft_conv
from keras_ssm.ops.powers import kernel as power_kernel
from keras_ssm.ops.powers import state_response
from keras_ssm.ops.recurrent import recurrent, step


@keras.saving.register_keras_serializable(package="keras_ssm")
class S4D(SSMLayer):
    """Diagonal state-space layer (S4D): one diagonal system for each feature.

    Every feature runs x' = A x + B u, y = 2 Re(C x) + D u with a diagonal A of its own, stored
    as one of each conjugate pair. The layer is the system and its skip D alone: activation,
    mixing of the features and normalisation belong to `SSMBlock`.

    Weights, all real: `log_dt` `(features, 1)`, `log_A_real`, `A_imag`, `B_real`, `B_imag`
    `(num_ssm, state_dim / 2)`, `C_real`, `C_imag` `(channels, features, state_dim / 2)` (twice
    the channels if bidirectional), `D` `(channels, features)`; A = -exp(log_A_real) + i A_imag.
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
        state_dim=64,
        init="legs",
        discretization="zoh",
        dt_min=1e-3,
        dt_max=1e-1,
        dt_tie=True,
        bidirectional=False,
        channels=1,
        num_ssm=None,
        bandlimit=None,
        method="auto",
        chunk_size=None,
        seed=None,
        max_kernel_length=None,
        **kwargs,
    ):
        super().__init__(
            method=method,
            chunk_size=chunk_size,
            bidirectional=bidirectional,
            channels=channels,
            seed=seed,
            **kwargs,
        )
        check_positive(state_dim=state_dim)
        if state_dim % 2:
            raise ValueError(f"`state_dim` must be even. Received: state_dim={state_dim}")
        if init not in INITS:
            raise ValueError(f"`init` must be one of {', '.join(INITS)}. Received: init={init!r}")
        if discretization not in RULES:
            raise ValueError(
                f"`discretization` must be one of {', '.join(RULES)}. "
                f"Received: discretization={discretization!r}"
            )
        if not 0 < dt_min <= dt_max:
            raise ValueError(
                "`dt_min` and `dt_max` must satisfy 0 < dt_min <= dt_max. "
                f"Received: dt_min={dt_min}, dt_max={dt_max}"
            )
        if num_ssm is not None:
            check_positive(num_ssm=num_ssm)
        if bandlimit is not None and bandlimit <= 0:
            raise ValueError(f"`bandlimit` must be positive. Received: bandlimit={bandlimit}")
        if max_kernel_length is not None:
            check_positive(max_kernel_length=max_kernel_length)
            if method not in ("auto", "fft"):
                raise ValueError(
                    "A layer with `max_kernel_length` is evaluated by method='fft'. "
                    f"Received: method={method!r}"
                )
        self.state_dim = state_dim
        self.init = init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.dt_tie = dt_tie
        self.num_ssm = num_ssm
        self.bandlimit = bandlimit
        self.max_kernel_length = max_kernel_length

    def build_system(self, features):
        copies = self.num_ssm or features
        if features % copies:
            raise ValueError(
                f"`num_ssm` must divide the features of the input. "
                f"Received: num_ssm={copies}, features={features}"
            )
        rng = self.make_rng()
        modes = self.state_dim // 2
        dt_shape = (features, 1 if self.dt_tie else modes)
        log_dt = initializers.log_uniform_step(dt_shape, self.dt_min, self.dt_max, rng)
        A, B = initializers.diagonal(self.init, self.state_dim, copies, rng)
        directions = 2 if self.bidirectional else 1
        C_shape = (directions * self.channels, features, modes)
        C_real, C_imag = rng.standard_normal((2, *C_shape)) * np.sqrt(0.5)
        self.log_dt = self.add_system_weight("log_dt", log_dt)
        self.log_A_real = self.add_system_weight("log_A_real", np.log(-A.real))
        self.A_imag = self.add_system_weight("A_imag", A.imag)
        self.B_real = self.add_system_weight("B_real", B.real)
        self.B_imag = self.add_system_weight("B_imag", B.imag)
        self.C_real = self.add_system_weight("C_real", C_real)
        self.C_imag = self.add_system_weight("C_imag", C_imag)
        self.D = self.add_system_weight("D", rng.standard_normal((self.channels, features)))

    def state_shape(self, features):
        return (features, self.state_dim)

    def discretize(self):
        """Returns dA, dB, dC and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: `dA`, `dB` `(features, state_dim)`, `dC`
            `(channels, features, state_dim)`, `D` `(channels, features)`, real parts then
            imaginary parts on the last axis.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        self._check_has_state()
        self.check_built()
        log_dA, dB, C = self._system()
        dA = pair.exp(log_dA)
        # A copy: training and predicting on JAX give the weight's own buffer away.
        D = ops.copy(self._tensor(self.D))
        return DiscreteSystem(pair.join(dA), pair.join(dB), pair.join(C), D)

    def advance(self, x, state, system):
        y, state = step(x, state, system.dA, system.dB, system.dC)
        return y + self._skip(x, system.D), state

    def evaluate(self, x, initial_state, lengths, return_state):
        log_dA, dB, C = self._system()
        method = "chunked" if self.method == "auto" else self.method
        if method == "fft" or self.max_kernel_length is not None:
            y, state = self._convolve(x, log_dA, dB, C, initial_state, lengths, return_state)
        elif method == "recurrent":
            y, state = recurrent(x, log_dA, dB, C, initial_state, lengths)
        else:
            y, state = chunked(
                x,
                log_dA,
                dB,
                C,
                initial_state=initial_state,
                lengths=lengths,
                bidirectional=self.bidirectional,
                chunk_size=self.chunk_size,
                return_state=return_state,
            )
        return y + self._skip(x, self._tensor(self.D)), state

    def kernel(self, length):
        """Returns the convolution kernel of each feature.

        Args:
            length: int. Number of steps.

        Returns:
            Tensor `(features, length)`; `(channels, features, length)` with several channels;
            a leading axis of 2 (past, future) if bidirectional. The future half starts at the
            sample after the current one.

        Raises:
            ValueError: if the length is not a positive integer.
        """
        check_positive(length=length)
        self.check_built()
        log_dA, dB, C = self._system()
        K = power_kernel(pair.multiply(C, dB), log_dA, length)
        directions = (2,) if self.bidirectional else ()
        channels = (self.channels,) if self.channels > 1 else ()
        return ops.reshape(K, (*directions, *channels, self.features, length))

    def get_config(self):
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "init": self.init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "dt_tie": self.dt_tie,
            "num_ssm": self.num_ssm,
            "bandlimit": self.bandlimit,
            "max_kernel_length": self.max_kernel_length,
        }

    def _check_has_state(self):
        super()._check_has_state()
        if self.max_kernel_length is not None:
            raise ValueError(
                f"{self.name} has a truncated kernel, which no state produces. "
                f"Received: max_kernel_length={self.max_kernel_length}"
            )

    def _tensor(self, weight):
        return ops.convert_to_tensor(weight, dtype=self.system_dtype)

    def _system(self):
        """The pairs (log_dA, dB, C), one system for each feature."""
        tensor = self._tensor
        A = -ops.exp(tensor(self.log_A_real)), tensor(self.A_imag)
        B = tensor(self.B_real), tensor(self.B_imag)
        C = tensor(self.C_real), tensor(self.C_imag)
        copies = A[0].shape[0]
        if copies != self.features:
            repeats = (self.features // copies, 1)
            A, B = (tuple(ops.tile(part, repeats) for part in p) for p in (A, B))
        dt = ops.exp(tensor(self.log_dt))
        if self.bandlimit is not None:
            # Relative to the samples the layer was trained on: step_scale does not enter.
            heard = dt * ops.abs(A[1]) / (2 * np.pi) < 0.5 * self.bandlimit
            C = tuple(ops.where(heard, part, ops.zeros_like(part)) for part in C)
        log_dA, dB = RULES[self.discretization](A, B, dt * tensor(self.step_scale))
        return log_dA, dB, C

    def _skip(self, x, D):
        """D u for each channel, channels outermost: `(..., channels * features)`."""
        if self.channels == 1:
            return x * D[0]
        return ops.concatenate([x * D[c] for c in range(self.channels)], axis=-1)

    def _convolve(self, x, log_dA, dB, C, initial_state, lengths, return_state):
        length = x.shape[1] or ops.shape(x)[1]
        steps = length
        if self.max_kernel_length is not None:
            steps = (
                min(length, self.max_kernel_length)
                if isinstance(length, int)
                else (ops.minimum(length, self.max_kernel_length))
            )
        K = power_kernel(pair.multiply(C, dB), log_dA, steps)
        y = fft_conv(x, K, bidirectional=self.bidirectional)
        if initial_state is not None:
            y = y + state_response(initial_state, log_dA, C, length)
        state = None
        if return_state:
            _, state = chunked(
                x,
                log_dA,
                dB,
                C,
                initial_state,
                lengths,
                chunk_size=self.chunk_size,
                return_state=True,
            )
        return y, state
