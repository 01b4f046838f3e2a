"""Diagonal-plus-low-rank state matrices of the S4 layer, in NumPy float64."""

import numpy as np

from keras_ssm.initializers import hippo
from keras_ssm.initializers.diagonal import closed_form, damped, shares
from keras_ssm.initializers.hippo import NPLR


def dplr(init, state_dim, rank=1, num_ssm=1, seed=None):
    """Returns the systems diag(A) - sum_r P_r P_r^H with input B that an S4 layer starts from.

    The names are those of `diagonal`. A HiPPO measure brings its low-rank terms. A closed form
    (`"lin"`, `"inv"`, ...) has B = 1 and complex normal P of unit variance, drawn anew for each
    system; as a part of a mixture its P is zero, as published.

    Args:
        init: str. A name of `diagonal`: a HiPPO measure, a closed form or a mixture.
        state_dim: int. Even size N of the full state; N/2 modes are returned.
        rank: int. Number R of low-rank terms. `"legt"` needs two. Defaults to `1`.
        num_ssm: int. Number S of independent systems. Defaults to `1`.
        seed: int, `numpy.random.Generator` or `None`. Source of P of the closed forms and of
            `"rand"`.

    Returns:
        An `NPLR` of complex128 arrays `A (S, N/2)`, `P (R, S, N/2)`, `B (S, N/2)`.

    Raises:
        ValueError: if `init` is unknown, `state_dim` is odd or too small, `rank` is below what
            the measure needs, or a mixture does not divide `num_ssm`.

    Example:
        ```python
        system = dplr("legt", state_dim=8, rank=2, num_ssm=3)
        assert system.A.shape == (3, 4) and system.P.shape == (2, 3, 4)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), sections 3.1 and 3.2.
    """
    names, copies = shares(init, state_dim, num_ssm)
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1. Received: rank={rank}")
    rng = np.random.default_rng(seed)
    systems = []
    for name in names:
        if name in hippo.MEASURES:
            systems += [hippo.nplr(name, state_dim, rank)] * copies
            continue
        for _ in range(copies):
            A, B = closed_form(name, state_dim, rng)
            P = np.zeros((rank, state_dim // 2), dtype=np.complex128)
            if name == init:
                real, imag = rng.standard_normal((2, *P.shape))
                P = np.sqrt(0.5) * (real + 1j * imag)
            systems.append(NPLR(A, P, B))
    A, P, B = zip(*systems, strict=True)
    return NPLR(A=damped(np.stack(A)), P=np.stack(P, axis=1), B=np.stack(B))
