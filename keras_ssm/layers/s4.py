import keras
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.s4d import S4D
from keras_ssm.ops import pair
from keras_ssm.ops.dense_bank import DenseBank
from keras_ssm.ops.dplr import dplr_bilinear, dplr_factors, dplr_kernel
from keras_ssm.ops.recurrent import low_rank_step
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class S4(S4D):
    """Structured state-space layer (S4): one diagonal-plus-low-rank system for each feature.

    Every feature runs x' = (A - P P^H) x + B u, y = 2 Re(C x) + D u, discretised with the
    bilinear rule, with A, P and B in conjugate pairs of which one is kept. C is stored as it is:
    no kernel length is built into it. `"chunked"` and `"recurrent"` use the dense real form of
    the system, `"fft"` the frequency-domain kernel (Cauchy matrix and Woodbury identity).

    Weights, all real: those of `S4D`, and `P_real`, `P_imag` `(rank, num_ssm, state_dim / 2)`.

    Args:
        state_dim: int. Full, even size N of the state. Defaults to `64`.
        init: str. Initial A, P and B: a HiPPO matrix `"legs"`, `"legt"` (rank 2 or more),
            `"lagt"`, `"fourier"`, `"fourier_decay"`, ..., a mixture such as `"hippo"`, or a
            diagonal one of `S4D` with a random P; see `keras_ssm.initializers.dplr`.
            Defaults to `"legs"`.
        rank: int. Rank of the low-rank part. Defaults to `1`.
        discretization: str. `"bilinear"`, the only rule that keeps the structure.
        dt_min: float. Smallest initial step, in units of time per sample. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        bidirectional: bool. As in `S4D`. Defaults to `False`.
        channels: int. As in `S4D`. Defaults to `1`.
        num_ssm: int or `None`. Number of different (A, P, B), of which feature h uses number
            `h % num_ssm`. Defaults to `None`: one a feature.
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        seed: int or `None`. Seed of the initial weights.
        max_kernel_length: int or `None`. As in `S4D`. Defaults to `None`.
        dt_transform: str. `"exp"` or `"softplus"`, as in `S4D`. Defaults to `"exp"`.
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
        ValueError: for an odd `state_dim`, an unknown `init`, `discretization` or `method`, a
            rank too small for the `init`, integer or empty inputs, a mask or state of another
            shape, or a state asked of a bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.S4(state_dim=32, init="legt", rank=2)
        x = np.random.default_rng(0).normal(size=(2, 200, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 200, 8), (2, 8, 32)
        y_next, state = layer.step(x[:, 0], state)
        ```

    Reference:
        - [S4](https://arxiv.org/abs/2111.00396), sections 3.2 to 3.4.
        - [It's Raw!](https://arxiv.org/abs/2202.09729), section 4.1, for -P P^H.
    """

    def __init__(
        self,
        state_dim: int = 64,
        init: str = "legs",
        rank: int = 1,
        discretization: str = "bilinear",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
        channels: int = 1,
        num_ssm: int | None = None,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        max_kernel_length: int | None = None,
        dt_transform: str = "exp",
        **kwargs,
    ):
        super().__init__(
            state_dim=state_dim,
            init=init,
            discretization=discretization,
            dt_min=dt_min,
            dt_max=dt_max,
            bidirectional=bidirectional,
            channels=channels,
            num_ssm=num_ssm,
            method=method,
            chunk_size=chunk_size,
            seed=seed,
            max_kernel_length=max_kernel_length,
            dt_transform=dt_transform,
            **kwargs,
        )
        check_choice("discretization", discretization, ["bilinear"])
        check_positive(rank=rank)
        if init == "legt" and rank < 2:
            raise ValueError(f"init='legt' needs a `rank` of at least 2. Received: rank={rank}")
        self.rank = rank

    def initial_system(self, features, copies, rng):
        system = initializers.dplr(self.init, self.state_dim, self.rank, copies, rng)
        self.P_real, self.P_imag = self.add_complex_weight("P", system.P)
        return system.A, system.B, self.draw_C((features, self.modes), rng)

    def bank(self, length=None):
        dt, A, P, B, C = self.dplr_system()
        E, dB = dplr_bilinear(A, P, B, dt)
        return DenseBank(E, dB, 2.0 * pair.join(pair.conjugate(C)))

    def dplr_system(self):
        """Returns dt `(features, 1)` and the pairs A, P, B, C, one for each feature."""
        dt, A, B, C = self.continuous_system()
        repeats = self.features // self.P_real.shape[1]
        P = tuple(ops.tile(self.tensor(p), (1, repeats, 1)) for p in (self.P_real, self.P_imag))
        return dt, A, P, B, C

    def convolution_kernel(self, bank, length):
        dt, A, P, B, C = self.dplr_system()
        return dplr_kernel(A, P, B, C, dt, bank, length)

    def discrete_system(self, bank, D):
        E, dB, dC = bank.matrices()
        dt, A, P, _, _ = self.dplr_system()
        dA = E + ops.eye(self.state_dim, dtype=E.dtype)
        return DiscreteSystem(dA, dB, dC, D, dplr_factors(A, P, dt))

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        y, state = low_rank_step(x, state, system.low_rank, system.dB, system.dC)
        return y + self.skip_of(x, system.D), state

    def get_config(self):
        config = {**super().get_config(), "rank": self.rank}
        return {key: config[key] for key in config if key not in ("dt_tie", "bandlimit")}
