import keras
import numpy as np
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_flags, check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.mimo_layer import MIMOLayer
from keras_ssm.layers.ssm_layer import valid_steps
from keras_ssm.layers.timesteps import check_timesteps_shape, checked_timesteps
from keras_ssm.ops import backend, pair
from keras_ssm.ops.discretize import RULES
from keras_ssm.types import Pair, State, Tensor

C_INITS = ("lecun_normal", "trunc_standard_normal", "complex_normal")

# Largest real part of an eigenvalue under `clip_eigs`, as published.
LARGEST_REAL_PART = -1e-4


@keras.saving.register_keras_serializable(package="keras_ssm")
class S5(MIMOLayer):
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
            state_dim=state_dim,
            method=method,
            chunk_size=chunk_size,
            bidirectional=bidirectional,
            seed=seed,
            **kwargs,
        )
        check_positive(blocks=blocks)
        check_flags(conj_sym=conj_sym, clip_eigs=clip_eigs)
        if state_dim % blocks or (conj_sym and state_dim // blocks % 2):
            raise ValueError(
                "`blocks` must divide `state_dim`, into even parts with `conj_sym`. "
                f"Received: state_dim={state_dim}, blocks={blocks}, conj_sym={conj_sym}"
            )
        check_choice("c_init", c_init, C_INITS)
        check_choice("discretization", discretization, RULES)
        initializers.log_uniform_step((), dt_min, dt_max)  # checks the range
        self.blocks = blocks
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.c_init = c_init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max

    def build_system(self, features: int) -> None:
        rng = self.make_rng()
        log_dt, Lambda, B, C = self.initial_system(features, rng)
        self.log_dt = self.add_system_weight("log_dt", log_dt)
        self.Lambda_real, self.Lambda_imag = self.add_complex_weight("Lambda", Lambda)
        self.B_real, self.B_imag = self.add_complex_weight("B", B)
        self.C_real, self.C_imag = self.add_complex_weight("C", C)
        self.add_skip(features, rng)

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

    def evaluate(self, x, mask=None, initial_state=None, return_state=False, timesteps=None):
        if timesteps is None:
            return super().evaluate(x, mask, initial_state, return_state)
        B = ops.concatenate((self.tensor(self.B_real), self.tensor(self.B_imag)), axis=0)
        B = ops.transpose(B)
        dt = ops.exp(self.tensor(self.log_dt))
        log_dA, gain = self._discrete(dt * timesteps[..., None])
        driven = pair.join(pair.multiply(gain, pair.split(backend.project(x, B))))
        start, lengths = self.start(x, B, initial_state), valid_steps(mask, return_state)
        return self.scanned(x, log_dA, driven, start, lengths, return_state)

    def get_config(self):
        return {
            **super().get_config(),
            "blocks": self.blocks,
            "conj_sym": self.conj_sym,
            "clip_eigs": self.clip_eigs,
            "c_init": self.c_init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
        }

    def eigenvalues(self) -> Pair:
        """Returns the pair Lambda, `(modes,)`."""
        real, imag = self.tensor(self.Lambda_real), self.tensor(self.Lambda_imag)
        return backend.minimum(real, LARGEST_REAL_PART) if self.clip_eigs else real, imag

    def discrete_matrices(self) -> tuple[Pair, Tensor]:
        log_dA, gain = self._discrete(ops.exp(self.tensor(self.log_dt)))
        B = self.tensor(self.B_real), self.tensor(self.B_imag)
        dB = pair.multiply(tuple(g[:, None] for g in gain), B)
        return log_dA, ops.transpose(ops.concatenate(dB, axis=0))

    def output_matrices(self) -> Tensor:
        return pair.join((self.tensor(self.C_real), self.tensor(self.C_imag)))

    def _discrete(self, dt):
        """log dA and the factor of B, for steps `(..., modes)`."""
        A = self.eigenvalues()
        one = ops.ones_like(A[0]), ops.zeros_like(A[0])
        return RULES[self.discretization](A, one, dt * self.tensor(self.step_scale))
