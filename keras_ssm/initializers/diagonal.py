"""Diagonal state matrices of the S4D family, in NumPy float64."""

import numpy as np

from keras_ssm.initializers import hippo

CLOSED_FORMS = ("lin", "inv", "inv2", "quad", "real", "rand")

COMBINATIONS = {
    "hippo": ("legs", "fourier"),
    "diag": ("inv", "lin"),
    "all": ("legs", "fourier", "inv", "lin"),
}

INITS = (*CLOSED_FORMS, *hippo.MEASURES, *COMBINATIONS)

# Re(A) is stored through a logarithm: a mode that is not damped gets this.
MIN_DAMPING = 1e-4


def diagonal(init, state_dim, num_ssm=1, seed=None):
    """Returns the diagonal systems (A, B) that an S4D layer starts from.

    | init | Re A | -Im A, n = 0 .. N/2 - 1 |
    |---|---|---|
    | `"lin"` | -1/2 | pi n |
    | `"inv"` | -1/2 | N/pi (N / (2n + 1) - 1) |
    | `"inv2"` | -1/2 | N/pi (N / (n + 1) - 1) |
    | `"quad"` | -1/2 | (2n + 1)^2 / pi |
    | `"real"` | -(n + 1) | 0 |
    | `"rand"` | -1/2 | exp of a normal number |
    | `"legs"`, `"legsd"`, `"legt"`, `"lagt"` | normal part of that HiPPO matrix | |
    | `"fourier"`, `"fourier_decay"`, `"fourier2"`, `"foud"` | the same | |

    B is 1 for the closed forms and the rotated HiPPO input for the others. Three names are
    mixtures with an equal share of the copies each: `"hippo"` (legs, fourier), `"diag"`
    (inv, lin), `"all"` (legs, fourier, inv, lin).

    Args:
        init: str. A name of the table or of a mixture.
        state_dim: int. Even size N of the full state; N/2 modes are returned.
        num_ssm: int. Number S of independent systems. Defaults to `1`.
        seed: int, `numpy.random.Generator` or `None`. Source of `"rand"`.

    Returns:
        Tuple of complex128 arrays `(A, B)`, each `(S, N/2)`.

    Raises:
        ValueError: if `init` is unknown, `state_dim` is odd or not positive, or a mixture does
            not divide `num_ssm`.

    Example:
        ```python
        A, B = diagonal("lin", state_dim=4, num_ssm=2)
        assert np.allclose(A[0], [-0.5, -0.5 - 1j * np.pi])
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    names, copies = shares(init, state_dim, num_ssm)
    rng = np.random.default_rng(seed)
    systems = []
    for name in names:
        if name in hippo.MEASURES:
            # Two rows serve every measure; P itself is not used.
            system = hippo.nplr(name, state_dim, rank=2)
            systems += [(system.A, system.B)] * copies
        else:
            systems += [closed_form(name, state_dim, rng) for _ in range(copies)]
    A, B = (np.stack(arrays) for arrays in zip(*systems, strict=True))
    return damped(A), B


def shares(init, state_dim, num_ssm):
    """Returns the parts of an initialization and how many systems each of them gets.

    Args:
        init: str. One of `INITS`.
        state_dim: int. Even size of the full state.
        num_ssm: int. Number of systems.

    Returns:
        Tuple `(names, copies)`.

    Raises:
        ValueError: as `diagonal`.

    Example:
        ```python
        assert shares("hippo", 64, 8) == (("legs", "fourier"), 4)
        ```
    """
    if state_dim < 2 or state_dim % 2:
        raise ValueError(
            f"`state_dim` must be an even positive number. Received: state_dim={state_dim}"
        )
    if init not in INITS:
        raise ValueError(f"`init` must be one of {', '.join(INITS)}. Received: init={init!r}")
    names = COMBINATIONS.get(init, (init,))
    if num_ssm < 1 or num_ssm % len(names):
        raise ValueError(
            f"`num_ssm` must be a positive multiple of {len(names)} for init={init!r}. "
            f"Received: num_ssm={num_ssm}"
        )
    return names, num_ssm // len(names)


def closed_form(name, state_dim, rng):
    """Returns (A, B) of one closed form of the table of `diagonal`.

    Args:
        name: str. One of `CLOSED_FORMS`.
        state_dim: int. Even size N of the full state.
        rng: `numpy.random.Generator`. Source of `"rand"`.

    Returns:
        Tuple of complex128 arrays `(A, B)`, each `(N/2,)`.

    Example:
        ```python
        A, B = closed_form("real", 8, np.random.default_rng(0))
        assert np.allclose(A, [-1, -2, -3, -4])
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    N = state_dim
    n = np.arange(N // 2, dtype=np.float64)
    imag = {
        "lin": lambda: np.pi * n,
        "inv": lambda: N / np.pi * (N / (2 * n + 1) - 1),
        "inv2": lambda: N / np.pi * (N / (n + 1) - 1),
        "quad": lambda: (2 * n + 1) ** 2 / np.pi,
        "real": lambda: 0.0 * n,
        "rand": lambda: np.exp(rng.standard_normal(n.shape)),
    }[name]()
    real = -(n + 1) if name == "real" else np.full_like(n, -0.5)
    return real - 1j * imag, np.ones_like(n, dtype=np.complex128)


def damped(A):
    """Returns A with real parts of at most `-MIN_DAMPING`.

    Args:
        A: complex array of any shape.

    Returns:
        complex128 array of the same shape.

    Example:
        ```python
        assert damped(np.array([2j]))[0] == -1e-4 + 2j
        ```
    """
    return np.minimum(A.real, -MIN_DAMPING) + 1j * A.imag
