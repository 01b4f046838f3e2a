"""HiPPO transition matrices and their normal-plus-low-rank form, in NumPy float64."""

from typing import NamedTuple

import numpy as np

# Base frequency, weight of B B^T in A, weight of B as the input, of each Fourier system.
FOURIER = {
    "fourier": (np.pi, 1.0, 1.0),
    "fourier_decay": (np.pi, 0.5, 0.5),
    "fourier2": (2 * np.pi, 2.0, 2.0),
    "foud": (2 * np.pi, 0.0, 1.0),
}

MEASURES = ("legs", "legsd", "legt", "lagt", *FOURIER)

# The published code bounds the imaginary part of the rotated B of LegS, whose fastest modes
# would otherwise receive a weight that grows with the state size.
B_CLIP = 2.0


class NPLR(NamedTuple):
    """Half of a conjugate-symmetric system diag(A) - sum_r P_r P_r^H with input vector B."""

    A: np.ndarray
    P: np.ndarray
    B: np.ndarray


def transition(measure, state_dim):
    """Returns the dense HiPPO system x' = A x + B u of a measure.

    | measure | system |
    |---|---|
    | `"legs"` | Legendre polynomials scaled to all of the past |
    | `"legsd"` | normal part of `"legs"` with half its input |
    | `"legt"` | Legendre polynomials on a sliding window |
    | `"lagt"` | Laguerre polynomials under an exponential decay |
    | `"fourier"` | Fourier series on a sliding window |
    | `"fourier_decay"` | the same with half the feedback and half the input |
    | `"fourier2"` | twice the frequencies, the feedback and the input |
    | `"foud"` | twice the frequencies, damped by 1/2 instead of the feedback |

    Args:
        measure: str. A name of the table.
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
        - [HiPPO](https://arxiv.org/abs/2008.07669), theorems 1 (LegT, LagT) and 2 (LegS).
        - [How to Train Your HiPPO](https://arxiv.org/abs/2206.12037), section 4 (Fourier).
    """
    _check(measure, state_dim)
    q = np.arange(state_dim, dtype=np.float64)
    if measure in FOURIER:
        return _fourier(measure, state_dim)
    if measure == "lagt":
        return 0.5 * np.eye(state_dim) - np.tril(np.ones((state_dim, state_dim))), np.ones_like(q)
    root = np.sqrt(2 * q + 1)
    outer = np.outer(root, root)
    if measure == "legt":
        sign = np.where(q[:, None] < q, (-1.0) ** (q[:, None] - q), 1.0)
        return -0.5 * outer * sign, 0.5 * root
    A = -np.tril(outer, -1) - np.diag(q + 1)
    return (A + 0.5 * outer, 0.5 * root) if measure == "legsd" else (A, root)


def low_rank(measure, state_dim, rank=1):
    """Returns P such that A + P^T P of `transition` is normal.

    Args:
        measure: str. One of the names of `transition`.
        state_dim: int. Size N of the state.
        rank: int. Number R of rows. `"legt"` needs two; further rows are zero. Defaults to `1`.

    Returns:
        float64 array of shape `(R, N)`.

    Raises:
        ValueError: if the measure is unknown, the size is not positive or the rank is below
            what the measure needs.

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
    needed = 2 if measure == "legt" else 1
    if rank < needed:
        raise ValueError(
            f"`rank` must be at least {needed} for measure={measure!r}. Received: rank={rank}"
        )
    P = np.zeros((rank, state_dim))
    root = np.sqrt(np.arange(state_dim) + 0.5)
    if measure in FOURIER:
        P[0] = np.sqrt(FOURIER[measure][1]) * _fourier_input(state_dim)
    elif measure == "legt":
        P[0, 1::2] = root[1::2]
        P[1, ::2] = root[::2]
    elif measure == "lagt":
        P[0] = np.sqrt(0.5)
    elif measure == "legs":
        P[0] = root
    return P


def normal_eigenpairs(measure, state_dim):
    """Diagonalises the normal part of a HiPPO matrix, real part and skew part apart.

    The phase of an eigenvector is a convention: here its first entry that is not zero is real
    and positive. Eigenvectors of a conjugate pair are exactly conjugate.

    Args:
        measure: str. One of the names of `transition`.
        state_dim: int. Size N of the state.

    Returns:
        Tuple of complex128 arrays `(W, V)`: the eigenvalues `(N,)` by ascending imaginary part
        and the unitary matrix `(N, N)` of their eigenvectors.

    Raises:
        ValueError: if the measure is unknown or the size is not positive.

    Example:
        ```python
        W, V = normal_eigenpairs("legsd", 4)
        assert np.allclose((V * W) @ V.conj().T, transition("legsd", 4)[0])
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 3.1.
    """
    A, _ = transition(measure, state_dim)
    P = low_rank(measure, state_dim, rank=2)
    normal = A + P.T @ P
    imag, V = np.linalg.eigh(-1j * normal)
    half = state_dim // 2
    if measure in FOURIER and half:
        # The zero frequency is a plane of its own, where the solver may return any basis.
        imag[half - 1] = 0.0
        V[:, half - 1] = 0.0
        V[:2, half - 1] = np.array([1.0, 1.0j]) / np.sqrt(2.0)
    first = np.argmax(np.abs(V) > 1e-9, axis=0)
    pivot = V[first, np.arange(state_dim)]
    V = V / (pivot / np.abs(pivot))
    V[:, state_dim - half :] = V[:, :half].conj()[:, ::-1]
    imag[state_dim - half :] = -imag[:half][::-1]
    return np.mean(np.diag(normal)) + 1j * imag, V


def nplr(measure, state_dim, rank=1, clip=True):
    """Diagonalises the normal part of a HiPPO system and keeps one of each conjugate pair.

    The first entry of an eigenvector that is not zero is real and positive. The eigenvalue of
    negative imaginary part represents its pair, the fastest first.

    Args:
        measure: str. One of the names of `transition`.
        state_dim: int. Even size N >= 4 of the full state.
        rank: int. Number R of low-rank terms. `"legt"` needs two; further ones are zero.
            Defaults to `1`.
        clip: bool. Whether the imaginary part of B is bounded by 2, as published.
            Defaults to `True`.

    Returns:
        An `NPLR` of complex128 arrays `A (N/2,)`, `P (R, N/2)`, `B (N/2,)`.

    Raises:
        ValueError: if the measure is unknown, the size is odd or below 4, or the rank is below
            what the measure needs.

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
    P = low_rank(measure, state_dim, rank)
    _, B = transition(measure, state_dim)
    W, V = normal_eigenpairs(measure, state_dim)
    V = V[:, : state_dim // 2]
    B = V.conj().T @ B
    if clip:
        B = B.real + 1j * np.clip(B.imag, -B_CLIP, B_CLIP)
    return NPLR(A=W[: state_dim // 2], P=P @ V.conj(), B=B)


def _fourier(measure, N):
    frequency, feedback, scale = FOURIER[measure]
    A = np.zeros((N, N))
    even = np.arange(0, N - 1, 2)
    A[even, even + 1] = -frequency * np.arange(N // 2)
    A[even + 1, even] = frequency * np.arange(N // 2)
    B = _fourier_input(N)
    damping = 0.5 * np.eye(N) if measure == "foud" else feedback * np.outer(B, B)
    return A - damping, scale * B


def _fourier_input(N):
    B = np.zeros(N)
    B[::2] = np.sqrt(2.0)
    B[0] = 1.0
    return B


def _check(measure, state_dim):
    if measure not in MEASURES:
        raise ValueError(
            f"`measure` must be one of {', '.join(MEASURES)}. Received: measure={measure!r}"
        )
    if state_dim < 1:
        raise ValueError(f"`state_dim` must be positive. Received: state_dim={state_dim}")
