"""Perturb-then-diagonalise: HiPPO-LegS as a nearby diagonal system, in NumPy float64."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from keras_ssm.initializers.hippo import transition
from keras_ssm.initializers.perturbation import gaussian, is_paired, optimized

DEFAULT_SIZES = {"optimized": 0.03, "rank1": 0.1, "gaussian": 1e-3}

# Seeds that are tried for a stable spectrum of conjugate pairs. A search costs up to a second.
ATTEMPTS = {"optimized": 5, "rank1": 1, "gaussian": 50}

# Relative error of V diag(A) V_inv from which V counts as singular.
SINGULAR = 1e-8


class PTD(NamedTuple):
    """The diagonal form V diag(A) V_inv = A_LegS + E with input vector B = V_inv B_in."""

    A: np.ndarray
    V: np.ndarray
    V_inv: np.ndarray
    B: np.ndarray
    E: np.ndarray

    @property
    def paired(self):
        """Whether the second half is the conjugate of the first: half describes it all."""
        half = len(self.A) // 2
        return (
            bool(np.all(self.A[:half].imag < 0))
            and np.array_equal(self.A[half:], self.A[:half].conj())
            and np.array_equal(self.V[:, half:], self.V[:, :half].conj())
        )


def ptd(state_dim, perturbation="optimized", size=None, seed=None, real=True):
    """Diagonalises HiPPO-LegS after a small perturbation E, which makes that possible at all.

    The eigenvector matrix of LegS has a condition number that grows like 2^N; that of A + E is
    modest, and the system stays near LegS at every frequency, where the normal part of S4D-LegS
    does not.

    | perturbation | E | size | kappa(V) by default |
    |---|---|---|---|
    | `"optimized"` | minimises kappa(V) | Frobenius norm over that of A, 0.03 | 9 |
    | `"rank1"` | (t/2) B B^T, with input (1 - t/2) B | t, 0.1 | 19 |
    | `"gaussian"` | Gaussian matrix | 2-norm over that of A, 0.001 | thousands |

    For `"rank1"` every transfer function is that of LegS over 1 + tau b(s), with
    tau = t / (2 - t) and b of `blaschke`: at most t / (2 - 2t) from it, relatively, everywhere.

    A real E gives conjugate pairs and, unless N is small or chance decides so, no real
    eigenvalue. Then the first N/2 entries are one of each pair, of negative imaginary part, in
    ascending order, and the others their conjugates in the same order. Otherwise (`paired` is
    false) all N entries are needed, by ascending imaginary part.

    Args:
        state_dim: int. Even size N of the state.
        perturbation: str. A name of the table. Defaults to `"optimized"`.
        size: float or `None`. Size of E, see the table; in (0, 1), for `"rank1"` in (0, 1].
            Defaults to `None`, the value of the table.
        seed: int or `None`. Seed of the Gaussian matrix or of the start of the search; unused
            by `"rank1"`. `None` takes the first one, from 0 on, that gives a stable system of
            pairs, or the first stable one where none of a few does. A given seed is used
            whatever comes out. Defaults to `None`.
        real: bool. Whether E is real. Defaults to `True`.

    Returns:
        A `PTD` of read-only arrays: eigenvalues `A (N,)`, eigenvectors of unit length
        `V (N, N)`, `V_inv (N, N)`, `B (N,)`, all complex128, and `E (N, N)`.

    Raises:
        ValueError: if `perturbation` is unknown, `state_dim` is odd or not positive, `size` is
            out of range or so small that V is singular in floating point, `real=False` with
            `"rank1"`, or no seed gives a stable system.

    Example:
        ```python
        system = ptd(16)
        A, B = keras_ssm.initializers.transition("legs", 16)
        assert np.allclose(system.V * system.A @ system.V_inv, A + system.E)
        assert system.paired and np.linalg.cond(system.V) < 9
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), theorem 3 and the perturbation after it.
        `"rank1"` is not of the paper.
    """
    if perturbation not in DEFAULT_SIZES:
        raise ValueError(
            f"`perturbation` must be one of {', '.join(DEFAULT_SIZES)}. "
            f"Received: perturbation={perturbation!r}"
        )
    if state_dim < 2 or state_dim % 2:
        raise ValueError(
            f"`state_dim` must be an even positive number. Received: state_dim={state_dim}"
        )
    if size is None:
        size = DEFAULT_SIZES[perturbation]
    if not 0 < size <= 1 or (size == 1 and perturbation != "rank1"):
        interval = "(0, 1]" if perturbation == "rank1" else "(0, 1)"
        raise ValueError(
            f"`size` must lie in {interval} for perturbation={perturbation!r}. "
            f"Received: size={size}"
        )
    if perturbation == "rank1":
        if not real:
            raise ValueError(
                "`real` must be True for perturbation='rank1', which is real. "
                f"Received: real={real}"
            )
        seed = 0
    if seed is not None and not isinstance(seed, (int, np.integer)):
        raise ValueError(f"`seed` must be an integer or None. Received: seed={seed!r}")
    return _ptd(int(state_dim), perturbation, float(size), seed, bool(real))


@lru_cache(maxsize=32)
def _ptd(state_dim, perturbation, size, seed, real):
    if seed is not None:
        system = _system(state_dim, perturbation, size, seed, real)
    else:
        system = _first_stable(state_dim, perturbation, size, real)
    A, _ = transition("legs", state_dim)
    error = np.linalg.norm(system.V * system.A @ system.V_inv - A - system.E, 2)
    if not error < SINGULAR * np.linalg.norm(A, 2):
        raise ValueError(
            "`size` must be larger: the eigenvectors are singular in floating point. "
            f"Received: size={size}"
        )
    for array in system:
        array.setflags(write=False)
    return system


def _first_stable(state_dim, perturbation, size, real):
    fallback = None
    for seed in range(ATTEMPTS[perturbation]):
        system = _system(state_dim, perturbation, size, seed, real)
        if np.all(system.A.real < 0):
            if system.paired or not real:
                return system
            fallback = fallback or system
    if fallback is None:
        raise ValueError(
            f"`size` must be smaller: none of {ATTEMPTS[perturbation]} seeds gives a stable "
            f"system. Received: size={size}"
        )
    return fallback


def _system(state_dim, perturbation, size, seed, real):
    A, B = transition("legs", state_dim)
    if perturbation == "rank1":
        E = 0.5 * size * np.outer(B, B)
        B = (1 - 0.5 * size) * B
    elif perturbation == "gaussian":
        E = gaussian(A, size, seed, real)
    else:
        E = optimized(A, B, size, seed, real)
    W, V = np.linalg.eig(A + E)
    V = V / np.linalg.norm(V, axis=0)
    order = np.argsort(W.imag, kind="stable")
    W, V = W[order].astype(np.complex128), V[:, order].astype(np.complex128)
    half = state_dim // 2
    if real and is_paired(W):
        W = np.concatenate([W[:half], W[:half].conj()])
        V = V[:, :half]
        # V = [T, T'] [[I, I], [iI, -iI]] with real T and T': its inverse needs only real numbers.
        inverse = np.linalg.inv(np.concatenate([V.real, V.imag], axis=1))
        V_inv = 0.5 * (inverse[:half] - 1j * inverse[half:])
        V = np.concatenate([V, V.conj()], axis=1)
        V_inv = np.concatenate([V_inv, V_inv.conj()])
    else:
        V_inv = np.linalg.inv(V)
    return PTD(W, V, V_inv, V_inv @ B, E)
