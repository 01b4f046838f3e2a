"""HiPPO transition matrices and their normal-plus-low-rank form, in NumPy float64."""

from typing import NamedTuple

import numpy as np

MEASURES = ("legs", "legsd", "fourier", "foud")

# The published code bounds the imaginary part of the rotated B of LegS, whose fastest modes
# would otherwise receive a weight that grows with the state size.
B_CLIP = 2.0


class NPLR(NamedTuple):
    """Half of a conjugate-symmetric system diag(A) - P P^H with input vector B."""

    A: np.ndarray
    P: np.ndarray
    B: np.ndarray


def transition(measure, state_dim):
    """Returns the dense HiPPO system x' = A x + B u of a measure.

    Args:
        measure: str. `"legs"` (scaled Legendre), `"legsd"` (its normal part with half the
            input), `"fourier"` (truncated Fourier), `"foud"` (diagonal Fourier).
        state_dim: int. Size N of the state.

    Returns:
        Tuple of float64 arrays `(A, B)` of shapes `(N, N)` and `(N,)`.

    Raises:
        ValueError: if the measure is unknown or the size is not positive.

    Example:
        ```python
        A, B = transition("legs", 4)
        assert A.shape == (4, 4) and A[0, 0] == -1
        ```

    Reference:
        - [HiPPO](https://arxiv.org/abs/2008.07669), theorem 2 (LegS).
        - [How to Train Your HiPPO](https://arxiv.org/abs/2206.12037), section 4 (Fourier).
    """
    _check(measure, state_dim)
    q = np.arange(state_dim, dtype=np.float64)
    if measure in ("legs", "legsd"):
        B = np.sqrt(2 * q + 1)
        A = -np.tril(np.outer(B, B), -1) - np.diag(q + 1)
        return (A + 0.5 * np.outer(B, B), 0.5 * B) if measure == "legsd" else (A, B)
    frequency = (np.pi if measure == "fourier" else 2 * np.pi) * np.arange(state_dim // 2)
    rotation = np.zeros((state_dim, state_dim))
    even = np.arange(0, state_dim - 1, 2)
    rotation[even, even + 1] = -frequency
    rotation[even + 1, even] = frequency
    B = np.zeros(state_dim)
    B[::2] = np.sqrt(2.0)
    B[0] = 1.0
    low_rank = np.outer(B, B) if measure == "fourier" else 0.5 * np.eye(state_dim)
    return rotation - low_rank, B


def low_rank(measure, state_dim):
    """Returns P such that A + P P^T of `transition` is normal.

    Args:
        measure: str. One of `MEASURES`.
        state_dim: int. Size N of the state.

    Returns:
        float64 array of shape `(1, N)`.

    Raises:
        ValueError: if the measure is unknown or the size is not positive.

    Example:
        ```python
        A, _ = transition("legs", 4)
        P = low_rank("legs", 4)
        S = A + P.T @ P
        assert np.allclose(S + S.T, -np.eye(4))
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), theorem 1 and appendix C.1.
    """
    _check(measure, state_dim)
    if measure == "legs":
        return np.sqrt(np.arange(state_dim) + 0.5)[None]
    if measure == "fourier":
        return transition(measure, state_dim)[1][None]
    return np.zeros((1, state_dim))


def nplr(measure, state_dim, clip=True):
    """Diagonalises the normal part of a HiPPO system and keeps one of each conjugate pair.

    The phase of an eigenvector is a convention: here its first entry is real and positive. The
    eigenvalue of negative imaginary part represents its pair, the fastest first.

    Args:
        measure: str. One of `MEASURES`.
        state_dim: int. Even size N >= 4 of the full state.
        clip: bool. Whether the imaginary part of B is bounded by 2, as published.
            Defaults to `True`.

    Returns:
        An `NPLR` of complex128 arrays `A (N/2,)`, `P (1, N/2)`, `B (N/2,)`.

    Raises:
        ValueError: if the measure is unknown or the size is odd or below 4.

    Example:
        ```python
        system = nplr("legs", 64)
        assert np.allclose(system.A.real, -0.5)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 3.1.
    """
    if state_dim < 4 or state_dim % 2:
        raise ValueError(
            "`state_dim` must be an even number of at least 4 for a HiPPO initialization. "
            f"Received: state_dim={state_dim}"
        )
    A, B = transition(measure, state_dim)
    P = low_rank(measure, state_dim)
    normal = A + P.T @ P
    imag, vectors = np.linalg.eigh(-1j * normal)
    half = state_dim // 2
    imag, vectors = imag[:half], vectors[:, :half]
    if abs(imag[-1]) < 1e-4:
        # A zero frequency is a plane of its own: the pair spans e_0 and e_1.
        imag[-1] = 0.0
        vectors[:, -1] = 0.0
        vectors[:2, -1] = np.array([1.0, 1.0j]) / np.sqrt(2.0)
    first = vectors[0]
    phase = np.where(np.abs(first) > 1e-9, first / np.maximum(np.abs(first), 1e-300), 1.0)
    vectors = vectors / phase
    B = vectors.conj().T @ B
    if clip:
        B = B.real + 1j * np.clip(B.imag, -B_CLIP, B_CLIP)
    real = np.mean(np.diag(normal))
    return NPLR(A=real + 1j * imag, P=P @ vectors.conj(), B=B)


def _check(measure, state_dim):
    if measure not in MEASURES:
        raise ValueError(
            f"`measure` must be one of {', '.join(MEASURES)}. Received: measure={measure!r}"
        )
    if state_dim < 1:
        raise ValueError(f"`state_dim` must be positive. Received: state_dim={state_dim}")
