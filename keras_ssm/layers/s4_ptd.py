import keras
import numpy as np

from keras_ssm import initializers
from keras_ssm.checks import check_choice
from keras_ssm.layers.inherited_arguments import inherits_arguments
from keras_ssm.layers.s4d import S4D

PERTURBATIONS = ("optimized", "rank1", "gaussian")


@keras.saving.register_keras_serializable(package="keras_ssm")
class S4PTD(S4D):
    """`S4D` that starts from HiPPO-LegS itself, by perturb-then-diagonalise (S4-PTD).

    LegS cannot be diagonalised in floating point, and S4D drops its low-rank part, which puts
    spikes into the frequency response. Here A + E is diagonalised, with a small E, and the
    response follows that of LegS everywhere. Only the initial weights differ from `S4D`:
    A = V diag(.) V^-1, B = V^-1 B_LegS and C = C_0 V with a real normal C_0.

    Weights: those of `S4D`. The perturbation is computed once per process and size. Where a
    perturbation leaves real eigenvalues (tiny states only), all of the modes are kept, not half.

    Args:
        state_dim: int. Full, even size N of the state; N/2 conjugate pairs are kept.
            Defaults to `64`.
        perturbation: str. `"optimized"` (the paper's: smallest eigenvector condition number at a
            fixed size), `"rank1"` (closed form, bounded deviation of the frequency response) or
            `"gaussian"` (baseline). Defaults to `"optimized"`.
        perturbation_size: float or `None`. Size of E as `keras_ssm.initializers.ptd` measures
            it. Defaults to `None`: 0.03, 0.1 and 0.001.
        **kwargs: Further arguments of `S4D`, all but `init`: `discretization`, `dt_min`, `dt_max`,
            `bidirectional`, `method`, ...; and of `keras.layers.Layer`.

    Call arguments:
        x, mask, initial_state, return_state: as in `S4D`.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, state_dim)`.

    Raises:
        ValueError: for an unknown `perturbation`, a `perturbation_size` out of range, and as
            `S4D`.

    Example:
        ```python
        layer = keras_ssm.layers.S4PTD(state_dim=32, perturbation="rank1")
        y = layer(np.zeros((2, 100, 8), "float32"))  # (2, 100, 8)
        ```

    Reference:
        [Robustifying State-space Models for Long Sequences via Approximate
        Diagonalization](https://arxiv.org/abs/2310.01698), section 4.
    """

    @inherits_arguments(S4D, without=("init",))
    def __init__(
        self,
        state_dim: int = 64,
        perturbation: str = "optimized",
        perturbation_size: float | None = None,
        **kwargs,
    ):
        super().__init__(state_dim=state_dim, **kwargs)
        check_choice("perturbation", perturbation, PERTURBATIONS)
        self.perturbation = perturbation
        self.perturbation_size = perturbation_size
        self._perturbed = initializers.ptd(state_dim, perturbation, perturbation_size)
        self._paired = self._perturbed.paired

    @property
    def modes(self) -> int:
        """Number of eigenvalues that are stored for a feature."""
        return self.state_dim // 2 if self._paired else self.state_dim

    def initial_system(self, features, copies, rng):
        modes = slice(self.modes)
        A, B, V = self._perturbed.A[modes], self._perturbed.B[modes], self._perturbed.V[:, modes]
        directions = 2 if self.bidirectional else 1
        C = rng.standard_normal((directions * self.channels, features, self.state_dim)) @ V
        # The layer adds the conjugate of every mode: where all are kept, each counts half.
        C = C if self._paired else 0.5 * C
        return np.tile(A, (copies, 1)), np.tile(B, (copies, 1)), C

    def get_config(self):
        config = super().get_config()
        del config["init"]
        return {
            **config,
            "perturbation": self.perturbation,
            "perturbation_size": self.perturbation_size,
        }
