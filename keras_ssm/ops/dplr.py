"""Diagonal-plus-low-rank systems A - P P^H in discrete time and in frequency.

Of each conjugate pair one mode is kept: the system acts on (x, conj x) with (A, conj A) and
(P, conj P), so that P^H x of both halves is 2 Re(P^H x), a real number.
"""

import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import Pair, Tensor


def dplr_bilinear(A: Pair, P: Pair, B: Pair, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Discretises diagonal-plus-low-rank systems with the bilinear rule, in real form.

    With D = 1 - dt A / 2 and the Woodbury identity

        E = dA - I = dt A / D - 2 dt (P / D) (I + dt G)^-1 Re((P / conj D)^H .)

    where G = Re(P^H P / D): nothing is subtracted from the identity, so that E keeps its digits
    for every dt.

    Args:
        A: pair of tensors `(features, modes)`. Eigenvalues, Re(A) < 0.
        P: pair of tensors `(rank, features, modes)`. Low-rank factors.
        B: pair of tensors `(features, modes)`. Input vectors.
        dt: tensor `(features, 1)`. Step, in units of time per sample.

    Returns:
        Tuple `(E, dB)`: `(features, 2 modes, 2 modes)` and `(features, 2 modes)`, acting on
        states of real parts, then imaginary parts.

    Example:
        ```python
        one, zero = ops.ones((1, 1)), ops.zeros((1, 1))
        E, dB = dplr_bilinear((-one, zero), (zero[None], zero[None]), (one, zero), one)
        # a mode without coupling: dA = 1/3, dB = 2/3
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3 and appendix C.2.
    """
    fused = backend.fused_dplr(A, P, B, dt, _dplr_bilinear)
    return _dplr_bilinear(A, P, B, dt) if fused is None else fused


def _dplr_bilinear(A, P, B, dt):
    """`dplr_bilinear` in operations that every backend has."""
    diagonal, columns, rows = dplr_factors(A, P, dt)
    matrix = _rotations(pair.split(diagonal)) - exact_einsum("rhi,rhj->hij", columns, rows)
    direct = pair.join(pair.multiply(B, _inverse(A, dt)))
    shared = exact_einsum("rhj,hj->rh", rows, pair.join(B))
    return matrix, dt * (direct - 0.5 * exact_einsum("rhi,rh->hi", columns, shared))


def dplr_factors(A: Pair, P: Pair, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Discretises as `dplr_bilinear` does, and leaves E = dA - I in its factors.

    Args:
        A, P, dt: as for `dplr_bilinear`.

    Returns:
        Tuple `(diagonal, columns, rows)`: `(features, 2 modes)`, complex numbers that multiply
        the modes, and twice `(rank, features, 2 modes)`: E x is the diagonal times x less
        columns (rows x), on states of real parts, then imaginary parts.

    Example:
        ```python
        one, zero = ops.ones((1, 1)), ops.zeros((1, 1))
        diagonal, columns, rows = dplr_factors((-one, zero), (zero[None], zero[None]), one)
        # a mode without coupling: -2/3
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), appendix C.2.
    """
    inverse = _inverse(A, dt)
    column = pair.multiply(P, inverse)  # P / D, (rank, features, modes)
    coupling = _inner(P, column) * dt[None, None, :, 0]  # dt G, (rank, rank, features)
    # Re((P / conj D)^H x) = Re(conj(P) x / D), a row on real states.
    row = pair.join(pair.conjugate(pair.multiply(pair.conjugate(P), inverse)))
    solved, _ = _solve((coupling[..., None], 0.0), (row, 0.0))  # (rank, features, 2 modes)
    diagonal = pair.join(pair.multiply(pair.scale(A, dt), inverse))
    return diagonal, 2.0 * dt * pair.join(column), solved


def _inverse(A, dt):
    """1 / (1 - dt A / 2)."""
    half = pair.scale(A, -0.5 * dt)
    return pair.divide((ops.ones_like(half[0]), 0.0 * half[1]), (1.0 + half[0], half[1]))


def dplr_kernel(
    A: Pair, P: Pair, B: Pair, C: Pair, dt: Tensor, bank, length: int | Tensor
) -> Tensor:
    """Returns the kernel of diagonal-plus-low-rank systems through their generating function.

    With w on the unit circle the truncated series sum_l K[l] w^l, l < L, is

        C~ (I - w dA)^-1 dB,   C~ = C (I - dA^L)

    at w^L = 1. Multiplied through by (1 + w) / 2 the resolvent is a Cauchy matrix plus a low
    rank, and has no pole at w = -1; the Woodbury identity and an inverse transform do the rest.

    Args:
        A, P, B, dt: as for `dplr_bilinear`.
        C: pair of tensors `(channels, features, modes)`. Output vectors.
        bank: `DenseBank` of the same systems, for dA^L.
        length: int or scalar tensor below 2^24. Number of steps L.

    Returns:
        Tensor `(channels, features, length)`.

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), theorem 3 and algorithm 1.
    """
    modes = A[0].shape[-1]
    truncated = -exact_einsum("chi,hij->chj", bank.readout, bank.power(length))
    # Real rows to complex vectors: C x = 2 Re(c x).
    truncated = pair.scale((truncated[..., :modes], -truncated[..., modes:]), 0.5)
    cosine, sine = _half_angles(length, A[0].dtype)

    # 1 / (2 i sin - dt A cos) and the same for conj A, (features, nodes, modes)
    x = tuple(part[:, None] * cosine[:, None] for part in pair.scale(A, dt))
    one = ops.ones_like(x[0]), ops.zeros_like(x[0])
    resolvent = pair.divide(one, (-x[0], 2.0 * sine[:, None] - x[1]))
    mirrored = pair.divide(one, (-x[0], 2.0 * sine[:, None] + x[1]))

    def cauchy(v):
        """sum_n v_n / d_n + conj(v_n) / d'_n of vectors `(..., features, modes)`."""
        re, im = v
        total = resolvent[0] + mirrored[0], resolvent[1] + mirrored[1]
        change = resolvent[0] - mirrored[0], resolvent[1] - mirrored[1]

        def product(a, b):
            return exact_einsum("...hn,hkn->...hk", a, b)

        return (
            product(re, total[0]) - product(im, change[1]),
            product(re, total[1]) + product(im, change[0]),
        )

    Pc, dt_B = pair.conjugate(P), pair.scale(B, dt)
    k00 = cauchy(pair.multiply(truncated, dt_B))  # (channels, features, nodes)
    k01 = cauchy(pair.multiply(tuple(c[:, None] for c in truncated), P))
    k10 = cauchy(pair.multiply(Pc, dt_B))  # (rank, features, nodes)
    k11 = cauchy(pair.multiply(tuple(p[:, None] for p in Pc), P))
    weight = dt * cosine  # (features, nodes)
    solved = _solve(pair.scale(k11, weight), k10)
    update = pair.multiply(k01, solved)
    update = tuple(weight * ops.sum(part, axis=1) for part in update)
    phase = cosine, sine  # the half angle of the node, which was taken out above
    re, im = pair.multiply((k00[0] - update[0], k00[1] - update[1]), phase)
    K = ops.irfft((re, im), fft_length=length)
    return ops.reshape(K, (*C[0].shape[:2], -1 if not isinstance(length, int) else length))


def _half_angles(length, dtype):
    """Cosine and sine of half the angle of the nodes with w^L = 1."""
    if isinstance(length, int):
        angle = np.pi * np.arange(length // 2 + 1) / length
        return tuple(ops.convert_to_tensor(f(angle), dtype=dtype) for f in (np.cos, np.sin))
    angle = np.pi * ops.cast(ops.arange(0, length // 2 + 1), dtype) / ops.cast(length, dtype)
    return backend.cos(angle), backend.sin(angle)


def _inner(P, Q):
    """Re(P_r^H Q_q), `(rank, rank, features)`."""
    return exact_einsum("rhn,qhn->rqh", pair.join(P), pair.join(Q))


def _rotations(a):
    """Multiplication by the complex numbers a as matrices on real states."""
    modes = a[0].shape[-1]
    eye = ops.convert_to_tensor(np.eye(modes), dtype=a[0].dtype)
    re, im = (part[..., None] * eye for part in a)
    top, bottom = ops.concatenate([re, -im], axis=-1), ops.concatenate([im, re], axis=-1)
    return ops.concatenate([top, bottom], axis=-2)


def _solve(M, b):
    """Solves (I + M) x = b by elimination; the Hermitian part of M is positive semidefinite.

    Pairs `(rank, rank, ...)` and `(rank, ...)`: the ranks are few, so no solver is needed, and
    no pivot vanishes.
    """
    rank = b[0].shape[0]

    def entry(z, *index):
        return tuple(p if isinstance(p, float) else p[index] for p in z)

    def subtract(x, y):
        return x[0] - y[0], x[1] - y[1]

    rows = [[entry(M, i, j) for j in range(rank)] for i in range(rank)]
    for i in range(rank):
        rows[i][i] = 1.0 + rows[i][i][0], rows[i][i][1]
    right = [entry(b, i) for i in range(rank)]
    for i in range(rank):
        for k in range(i + 1, rank):
            factor = pair.divide(rows[k][i], rows[i][i])
            for j in range(i + 1, rank):
                rows[k][j] = subtract(rows[k][j], pair.multiply(factor, rows[i][j]))
            right[k] = subtract(right[k], pair.multiply(factor, right[i]))
    for i in reversed(range(rank)):
        for j in range(i + 1, rank):
            right[i] = subtract(right[i], pair.multiply(rows[i][j], right[j]))
        right[i] = pair.divide(right[i], rows[i][i])
    real = ops.stack([x[0] for x in right])
    return real, 0.0 if isinstance(right[0][1], float) else ops.stack([x[1] for x in right])
