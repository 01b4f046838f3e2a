import keras
import numpy as np

from keras_ssm import initializers
from keras_ssm.checks import check_choice
from keras_ssm.layers.inherited_arguments import inherits_arguments
from keras_ssm.layers.s4_ptd import PERTURBATIONS
from keras_ssm.layers.s5 import S5


@keras.saving.register_keras_serializable(package="keras_ssm")
class S5PTD(S5):
    """`S5` that starts from HiPPO-LegS itself, by perturb-then-diagonalise (S5-PTD).

    Only the initial weights differ from `S5`: each block of the state matrix is A + E of LegS
    with a small perturbation E, diagonalised, where S5 drops the low-rank part. Without
    `conj_sym` both modes of every pair are stored and free; a layer of the same seed starts
    from the same function.

    Args:
        state_dim: int. Full size N of the state. Defaults to `64`.
        perturbation: str. `"optimized"`, `"rank1"` or `"gaussian"`; see `S4PTD`.
            Defaults to `"optimized"`.
        blocks: int. Number of equal blocks on the diagonal of the initial system.
            Defaults to `1`.
        perturbation_size: float or `None`. Size of E as `keras_ssm.initializers.ptd` measures
            it. Defaults to `None`: 0.03, 0.1 and 0.001.
        conj_sym: bool. As in `S5`. Defaults to `True`.
        **kwargs: Further arguments of `S5`: `discretization`, `dt_min`, `dt_max`, `bidirectional`,
            `method`, ...; and of `keras.layers.Layer`. Output weights are drawn real before the
            rotation, as `c_init` says.

    Call arguments:
        x, mask, initial_state, return_state, timesteps: as in `S5`.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state
        `(batch, 2 * modes)`.

    Raises:
        ValueError: for an unknown `perturbation`, a `perturbation_size` out of range, blocks
            too small to have conjugate pairs only (pass `conj_sym=False`), and as `S5`.

    Example:
        ```python
        layer = keras_ssm.layers.S5PTD(state_dim=32, blocks=2)
        y = layer(np.zeros((2, 100, 8), "float32"))  # (2, 100, 8)
        ```

    Reference:
        [Robustifying State-space Models for Long Sequences via Approximate
        Diagonalization](https://arxiv.org/abs/2310.01698), section 4.
    """

    @inherits_arguments(S5)
    def __init__(
        self,
        state_dim: int = 64,
        perturbation: str = "optimized",
        blocks: int = 1,
        perturbation_size: float | None = None,
        conj_sym: bool = True,
        **kwargs,
    ):
        super().__init__(state_dim=state_dim, blocks=blocks, conj_sym=conj_sym, **kwargs)
        check_choice("perturbation", perturbation, PERTURBATIONS)
        self.perturbation = perturbation
        self.perturbation_size = perturbation_size
        self._perturbed = initializers.ptd(state_dim // blocks, perturbation, perturbation_size)
        if conj_sym and not self._perturbed.paired:
            raise ValueError(
                "This perturbation leaves real eigenvalues, which have no conjugate to leave "
                "out: take larger blocks or `conj_sym=False`. Received: "
                f"state_dim={state_dim}, blocks={blocks}, perturbation={perturbation!r}"
            )

    def initial_system(self, features, rng):
        N, H, paired = self.state_dim, features, self._perturbed.paired
        size = N // self.blocks
        modes = size // 2 if paired else size
        repeat = np.eye(self.blocks)
        Lambda = np.tile(self._perturbed.A[:modes], self.blocks)
        V = np.kron(repeat, self._perturbed.V[:, :modes])
        V_inv = np.kron(repeat, self._perturbed.V_inv[:modes])
        log_dt = initializers.log_uniform_step((len(Lambda),), self.dt_min, self.dt_max, rng)
        B = V_inv @ initializers.lecun_normal((N, H), N, rng)
        directions = 2 if self.bidirectional else 1
        if self.c_init == "complex_normal":
            real, imag = rng.standard_normal((2, directions, H, len(Lambda))) * np.sqrt(0.5)
            C = real + 1j * imag
        else:
            C = self.draw_real_C((directions, H, N), rng) @ V
        if paired and not self.conj_sym:
            log_dt = np.tile(log_dt, 2)
            Lambda, B, C = (
                np.concatenate([z, z.conj()], axis=axis)
                for z, axis in ((Lambda, 0), (B, 0), (C, -1))
            )
        return log_dt, Lambda, B, C

    def get_config(self):
        return {
            **super().get_config(),
            "perturbation": self.perturbation,
            "perturbation_size": self.perturbation_size,
        }
