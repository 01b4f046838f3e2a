import functools

import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_flags, check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.ssm_layer import SSMLayer, valid_steps
from keras_ssm.layers.timesteps import check_timesteps_shape, checked_timesteps
from keras_ssm.ops import backend, pair
from keras_ssm.ops.discretize import RULES
from keras_ssm.ops.fourier import fft_scan
from keras_ssm.ops.mimo import mimo, read_out
from keras_ssm.ops.recurrence import scan
from keras_ssm.ops.recurrent import recurrent
from keras_ssm.types import State, Tensor

C_INITS = ("lecun_normal", "trunc_standard_normal", "complex_normal")

# Largest real part of an eigenvalue under `clip_eigs`, as published.
LARGEST_REAL_PART = -1e-4


@keras.saving.register_keras_serializable(package="keras_ssm")
class S5(SSMLayer):
    """Simplified state-space layer (S5): one diagonal system for all features together.

    The layer runs x' = Lambda x + B u, y = 2 Re(C x) + D u with as many inputs and outputs as
    there are features: project, scan, project back. Mixing of the features is inside; the
    activations of the paper (`"half_glu1"` and others) belong to `SSMBlock`.

    Weights, all real, with `modes` = state_dim / 2 (state_dim without `conj_sym`): `log_dt`,
    `Lambda_real`, `Lambda_imag` `(modes,)`, `B_real`, `B_imag` `(modes, features)`, `C_real`,
    `C_imag` `(1, features, modes)` (`(2, ...)` if bidirectional), `D` `(features,)`.

    Args:
        state_dim: int. Full size N of the state. Defaults to `64`.
        blocks: int. Number of equal HiPPO blocks on the diagonal of the initial system; it must
            divide `state_dim`. Defaults to `1`.
        conj_sym: bool. Whether the system is real, and one of each conjugate pair is kept. If
            not, N complex modes are free, and y = Re(C x) + D u. Defaults to `True`.
        clip_eigs: bool. Whether real parts of the eigenvalues are held below -1e-4.
            Defaults to `False`.
        c_init: str. `"lecun_normal"`, `"trunc_standard_normal"` (row by row) or
            `"complex_normal"`. Defaults to `"lecun_normal"`.
        discretization: str. `"zoh"` or `"bilinear"`. Defaults to `"zoh"`.
        dt_min: float. Smallest initial step, in units of time per sample. Every mode has a step
            of its own. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
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
        initial_state: tensor `(batch, 2 * modes)`, real parts then imaginary parts.
        return_state: bool. Whether the state after each row's last valid step is returned.
        timesteps: float tensor `(batch, length)` of positive factors on dt, for samples at
            irregular times: the time since the sample before, in units of the regular one.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state
        `(batch, 2 * modes)`.

    Raises:
        ValueError: for a `state_dim` that the blocks do not divide or that is odd, an unknown
            `c_init`, `discretization` or `method`, integer or empty inputs, a mask, state or
            `timesteps` of another shape, or a state asked of a bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.S5(state_dim=16, blocks=2)
        x = np.random.default_rng(0).normal(size=(2, 100, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 100, 8), (2, 16)
        times = np.cumsum(np.random.default_rng(1).exponential(size=(2, 100)), axis=1)
        y = layer(x, timesteps=np.diff(times, axis=1, prepend=0.0).astype("float32"))
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), equations 5 and 6, sections 3.1 to 3.3; 6.3 for
        irregular samples.
    """

    call_arguments = ("timesteps",)

    def __init__(
        self,
        state_dim: int = 64,
        blocks: int = 1,
        conj_sym: bool = True,
        clip_eigs: bool = False,
        c_init: str = "lecun_normal",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            method=method,
            chunk_size=chunk_size,
            bidirectional=bidirectional,
            seed=seed,
            **kwargs,
        )
        check_positive(state_dim=state_dim, blocks=blocks)
        check_flags(conj_sym=conj_sym, clip_eigs=clip_eigs)
        if state_dim % blocks or (conj_sym and state_dim // blocks % 2):
            raise ValueError(
                "`blocks` must divide `state_dim`, into even parts with `conj_sym`. "
                f"Received: state_dim={state_dim}, blocks={blocks}, conj_sym={conj_sym}"
            )
        check_choice("c_init", c_init, C_INITS)
        check_choice("discretization", discretization, RULES)
        initializers.log_uniform_step((), dt_min, dt_max)  # checks the range
        self.state_dim = state_dim
        self.blocks = blocks
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.c_init = c_init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max

    @property
    def modes(self) -> int:
        """Number of eigenvalues that are stored."""
        return self.state_dim // 2 if self.conj_sym else self.state_dim

    def build_system(self, features: int) -> None:
        rng = self.make_rng()
        log_dt, Lambda, B, C = self.initial_system(features, rng)
        self.log_dt = self.add_system_weight("log_dt", log_dt)
        self.Lambda_real, self.Lambda_imag = self.add_complex_weight("Lambda", Lambda)
        self.B_real, self.B_imag = self.add_complex_weight("B", B)
        self.C_real, self.C_imag = self.add_complex_weight("C", C)
        self.D = self.add_system_weight("D", rng.standard_normal(features))

    def initial_system(self, features, rng):
        """Initial log dt `(modes,)` and complex Lambda, B, C."""
        N, H = self.state_dim, features
        Lambda, V, V_inv = initializers.block_diagonal(N, self.blocks, self.conj_sym)
        log_dt = initializers.log_uniform_step((self.modes,), self.dt_min, self.dt_max, rng)
        B = V_inv @ initializers.lecun_normal((N, H), N, rng)
        directions = 2 if self.bidirectional else 1
        if self.c_init == "complex_normal":
            real, imag = rng.standard_normal((2, directions, H, self.modes)) * np.sqrt(0.5)
            return log_dt, Lambda, B, real + 1j * imag
        real, imag = self.draw_real_C((2, directions, H, N), rng)
        return log_dt, Lambda, B, (real + 1j * imag) @ V

    def draw_real_C(self, shape, rng):
        """Output weights before the rotation, of the variance that `c_init` asks for."""
        H, N = shape[-2:]
        # The published draws count all axes except that of the outputs as inputs.
        fan_in = N * H if self.c_init == "lecun_normal" else N
        return initializers.lecun_normal(shape, fan_in, rng)

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (2 * self.modes,)

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        timesteps: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, State]:
        if timesteps is not None:
            from_zero = initial_state is None
            timesteps = checked_timesteps(self, timesteps, tuple(x.shape[:2]), mask, from_zero)
        return self.run(x, mask, initial_state, return_state, timesteps=timesteps)

    def compute_output_spec(self, x, *args, timesteps=None, **kwargs):
        if timesteps is not None:
            check_timesteps_shape(self, timesteps.shape, tuple(x.shape[:2]))
        return super().compute_output_spec(x, *args, **kwargs)

    def step(
        self,
        x: Tensor,
        state: State,
        system: DiscreteSystem | None = None,
        timesteps: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Advances the layer by one sample.

        Args:
            x: float tensor `(batch, features)`. One sample.
            state: float tensor `(batch, 2 * modes)`.
            system: `DiscreteSystem` or `None`. What `discretize` returned; pass it when
                stepping in a loop, so that it is computed once.
            timesteps: float tensor `(batch,)` or `None`. Factor on dt of each row's sample;
                the system is then computed for each row.

        Returns:
            Tuple `(y, state)`: the output `(batch, features)` and the next state.

        Raises:
            ValueError: for arguments of another shape, a layer without state, or both a
                `system` and `timesteps`.
        """
        if timesteps is None:
            return super().step(x, state, system)
        if system is not None:
            raise ValueError(
                "`timesteps` change the system from row to row: pass no `system`. Received: both"
            )
        x = ops.convert_to_tensor(x)
        self.check_inputs(x.shape, x.dtype, rank=2)
        timesteps = checked_timesteps(self, timesteps, (x.shape[0],))
        y, state = self(
            x[:, None], initial_state=state, return_state=True, timesteps=timesteps[:, None]
        )
        return y[:, 0], state

    def discretize(self) -> DiscreteSystem:
        """Returns dA, dB, dC and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: `dA` `(2 * modes,)`, `dB` `(features, 2 * modes)`, `dC`
            `(features, 2 * modes)`, `D` `(features,)`, real parts then imaginary parts on the
            last axis.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        self.check_has_state()
        self.check_built()
        # A copy: training and predicting on JAX give the weight's own buffer away.
        return self._system(ops.copy(self.tensor(self.D)))

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        state = pair.join(pair.multiply(pair.split(system.dA), pair.split(state)))
        state = state + backend.matmul(x, system.dB)
        # The sign of the imaginary parts is changed in the state, which is smaller than dC.
        y = backend.matmul(self._rows(state), ops.transpose(system.dC))
        return y + x * system.D, state

    def evaluate(self, x, mask=None, initial_state=None, return_state=False, timesteps=None):
        lengths = valid_steps(mask, return_state)
        zero = ops.zeros_like(backend.matmul(x[:, 0], self._input_matrix()))
        start = zero if initial_state is None else initial_state
        method = self.chosen_method(x.shape[1])
        if method == "recurrent" and timesteps is None:
            system = self._system(self.tensor(self.D))
            return recurrent(
                x, lambda sample, state: self.advance(sample, state, system), start, lengths
            )
        C, D = self._rows(self._output_matrices()), self.tensor(self.D)
        if timesteps is None and lengths is None and method != "fft":
            log_dA, dB = self._discrete_matrices()
            return mimo(x, pair.join(pair.exp(log_dA)), dB, C, D, start)
        log_dA, driven = self._driven(x, timesteps)
        y, states = read_out(x, driven, C, D, start, functools.partial(self._scan, method, log_dA))
        return y, self._final(states, start, lengths) if return_state else None

    def get_config(self):
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "blocks": self.blocks,
            "conj_sym": self.conj_sym,
            "clip_eigs": self.clip_eigs,
            "c_init": self.c_init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
        }

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """Returns the pair Lambda, `(modes,)`."""
        real, imag = self.tensor(self.Lambda_real), self.tensor(self.Lambda_imag)
        return backend.minimum(real, LARGEST_REAL_PART) if self.clip_eigs else real, imag

    def _system(self, D):
        log_dA, dB = self._discrete_matrices()
        return DiscreteSystem(pair.join(pair.exp(log_dA)), dB, self._output_matrices()[0], D)

    def _discrete_matrices(self):
        """log dA `(modes,)`, and dB `(features, 2 * modes)`."""
        log_dA, gain = self._discrete(ops.exp(self.tensor(self.log_dt)))
        B = self.tensor(self.B_real), self.tensor(self.B_imag)
        dB = pair.multiply(tuple(g[:, None] for g in gain), B)
        return log_dA, ops.transpose(ops.concatenate(dB, axis=0))

    def _discrete(self, dt):
        """log dA and the factor of B, for steps `(..., modes)`."""
        A = self.eigenvalues()
        one = ops.ones_like(A[0]), ops.zeros_like(A[0])
        return RULES[self.discretization](A, one, dt * self.tensor(self.step_scale))

    def _input_matrix(self):
        return pair.join(
            (ops.transpose(self.tensor(self.B_real)), ops.transpose(self.tensor(self.B_imag)))
        )

    def _output_matrices(self):
        """C of each direction, `(directions, features, 2 modes)`."""
        return pair.join((self.tensor(self.C_real), self.tensor(self.C_imag)))

    def _driven(self, x, timesteps):
        """log dA `(modes,)` or `(batch, length, modes)`, and dB u `(batch, length, 2 modes)`."""
        if timesteps is None:
            log_dA, dB = self._discrete_matrices()
            return log_dA, backend.project(x, dB)
        dt = ops.exp(self.tensor(self.log_dt))
        log_dA, gain = self._discrete(dt * timesteps[..., None])
        v = pair.split(backend.project(x, self._input_matrix()))
        return log_dA, pair.join(pair.multiply(gain, v))

    def _scan(self, method, log_dA, driven, start, reverse):
        varies = len(log_dA[0].shape) > 1
        if method == "fft" and not varies:
            if not reverse:
                return fft_scan(log_dA, driven, start)
            return ops.flip(fft_scan(log_dA, ops.flip(driven, axis=1), start), axis=1)
        dA = pair.join(pair.exp(log_dA))
        return scan(dA if varies else dA[None, None], driven, start, reverse)

    def _rows(self, C):
        """C so that its product with a state, both as real vectors, is the output.

        That is 2 Re(C x), or Re(C x) of a system that is not real.
        """
        factor = 2.0 if self.conj_sym else 1.0
        return factor * pair.join(pair.conjugate(pair.split(C)))

    def _final(self, states, start, lengths):
        if lengths is None:
            return states[:, -1]
        index = ops.cast(ops.maximum(lengths - 1, 0), "int32")
        state = ops.take_along_axis(states, index[:, None, None], axis=1)[:, 0]
        return ops.where((lengths > 0)[:, None], state, start)
