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

# Re(A) is stored through a logarithm: an undamped mode of the Fourier family gets this.
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
    | `"legs"`, `"legsd"`, `"fourier"`, `"foud"` | normal part of that HiPPO matrix | |

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
    if state_dim < 2 or state_dim % 2:
        raise ValueError(
            f"`state_dim` must be an even positive number. Received: state_dim={state_dim}"
        )
    if init not in INITS:
        raise ValueError(f"`init` must be one of {', '.join(INITS)}. Received: init={init!r}")
    names = COMBINATIONS.get(init, (init,))
    if num_ssm % len(names):
        raise ValueError(
            f"`num_ssm` must be a multiple of {len(names)} for init={init!r}. "
            f"Received: num_ssm={num_ssm}"
        )
    rng = np.random.default_rng(seed)
    copies = num_ssm // len(names)
    systems = [_system(name, state_dim, rng) for name in names for _ in range(copies)]
    A = np.stack([A for A, _ in systems])
    B = np.stack([B for _, B in systems])
    return np.minimum(A.real, -MIN_DAMPING) + 1j * A.imag, B


def _system(name, N, rng):
    if name in hippo.MEASURES:
        system = hippo.nplr(name, N)
        return system.A, system.B
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
