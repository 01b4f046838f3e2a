"""Perturbations E that make A + E diagonalisable in floating point, in NumPy float64."""

import numpy as np

ITERATIONS = 150
START_NOISE = 0.01
TARGET = -0.5


def gaussian(A, size, seed, real=True):
    """Returns a Gaussian matrix whose 2-norm is `size` times that of A.

    Args:
        A: float64 array `(N, N)`.
        size: float. Relative 2-norm of the result.
        seed: int or `numpy.random.Generator`.
        real: bool. Whether the entries are real. Defaults to `True`.

    Returns:
        float64 or complex128 array `(N, N)`.

    Example:
        ```python
        E = gaussian(np.eye(4), size=0.1, seed=0)
        assert np.isclose(np.linalg.norm(E, 2), 0.1)
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), theorems 4 and 5.
    """
    G = _normal(np.random.default_rng(seed), A.shape, real)
    return G * (size * np.linalg.norm(A, 2) / np.linalg.norm(G, 2))


def optimized(A, B, size, seed, real=True):
    """Returns the E of a given Frobenius norm whose A + E has well-conditioned eigenvectors.

    L-BFGS minimises sum_i |v_i|^2 |w_i|^2 over the direction of E, where the v_i are the columns
    of V and the w_i the rows of its inverse: for unit v_i it is the squared Frobenius norm of
    the inverse. Eigenvalues right of -1/2 are penalised. The search starts beside B B^T, where
    the spectrum is one of conjugate pairs, and where it starts so it stays so.

    Args:
        A: float64 array `(N, N)`.
        B: float64 array `(N,)`. Input of the system.
        size: float. Frobenius norm of the result relative to that of A.
        seed: int or `numpy.random.Generator`. Source of the start.
        real: bool. Whether E is real. Defaults to `True`.

    Returns:
        float64 or complex128 array `(N, N)`.

    Example:
        ```python
        A, B = keras_ssm.initializers.transition("legs", 8)
        E = optimized(A, B, size=0.03, seed=0)
        assert np.linalg.cond(np.linalg.eig(A + E)[1]) < 9 < np.linalg.cond(np.linalg.eig(A)[1])
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), the problem of minimising kappa(V) and the norm
        of E together: here the norm is fixed.
    """
    from scipy.optimize import minimize

    norm = size * np.linalg.norm(A)
    noise = _normal(np.random.default_rng(seed), A.shape, real)
    start = np.outer(B, B) / (B @ B) + START_NOISE * noise / np.linalg.norm(noise)
    # The objective does not see the length, but the first step of L-BFGS has length one.
    start *= len(A) / np.linalg.norm(start)

    def perturbation(z):
        Z = z.view(start.dtype).reshape(A.shape)
        length = np.linalg.norm(Z)
        return norm / length * Z, Z / length, norm / length

    E, _, _ = perturbation(start.ravel().view(np.float64))
    paired = real and is_paired(np.linalg.eigvals(A + E))
    wall = 10 * _objective(A + E)[0]

    def objective(z):
        E, unit, scale = perturbation(z)
        value, gradient, eigenvalues = _objective(A + E)
        if paired and not is_paired(eigenvalues):
            # A conjugate pair can only split where V is singular: the step went too far.
            return wall, np.zeros_like(z)
        gradient = gradient.real if real else gradient
        radial = np.sum(gradient.conj() * unit).real
        return value, (scale * (gradient - radial * unit)).ravel().view(np.float64)

    options = {"maxiter": ITERATIONS, "maxcor": 20}
    z = start.ravel().view(np.float64)
    z = minimize(objective, z, jac=True, method="L-BFGS-B", options=options).x
    return perturbation(z)[0]


def is_paired(eigenvalues):
    """Returns whether the spectrum of a real matrix has no real eigenvalue.

    Args:
        eigenvalues: complex array `(N,)`.

    Returns:
        bool.

    Example:
        ```python
        assert is_paired(np.array([1j, -1j])) and not is_paired(np.array([1.0, 2.0]))
        ```
    """
    return bool(np.all(np.imag(eigenvalues) != 0))


def _objective(M):
    """Conditioning of the eigenvectors of M, its gradient G with df = Re tr(G^H dM), spectrum."""
    eigenvalues, V = np.linalg.eig(M)
    W = np.linalg.inv(V)
    s = np.sum(np.abs(W) ** 2, axis=1)
    t = np.sum(np.abs(V) ** 2, axis=0)
    excess = np.maximum(eigenvalues.real - TARGET, 0.0)
    gaps = eigenvalues[:, None] - eigenvalues
    np.fill_diagonal(gaps, np.inf)
    inner = (s[:, None] * _product(V.conj().T, V) - _product(W, W.conj().T) * t) / gaps
    inner += np.diag(excess)
    gradient = 2 * _product(_product(V, inner), W).conj().T
    return s @ t + excess @ excess, gradient, eigenvalues


def _product(X, Y):
    # BLAS computes a complex product of this size in several threads, which costs a hundred times
    # the product on a busy machine. Real products of this size run in one thread.
    real = X.real @ Y.real - X.imag @ Y.imag
    return real + 1j * (X.real @ Y.imag + X.imag @ Y.real)


def _normal(rng, shape, real):
    values = rng.standard_normal(shape)
    return values if real else values + 1j * rng.standard_normal(shape)
