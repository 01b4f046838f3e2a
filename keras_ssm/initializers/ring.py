"""Eigenvalues between two circles, in NumPy float64."""

import numpy as np

from keras_ssm.checks import check_number

# Close to 2 pi, as published.
MAX_PHASE = 6.283185


def ring(modes, r_min=0.0, r_max=1.0, max_phase=MAX_PHASE, seed=None):
    """Returns eigenvalues drawn uniformly on a ring, as `LRU` stores them, and their gains.

    The eigenvalues are e^(-e^nu + i e^theta). A gain sqrt(1 - |lambda|^2) gives the state of a
    mode the variance of its inputs, if those are white noise.

    Args:
        modes: int. Number of eigenvalues.
        r_min: float. Smallest modulus. Defaults to `0.0`.
        r_max: float. Largest modulus, at most 1. Defaults to `1.0`.
        max_phase: float. Largest angle, at most 2 pi. Defaults to `6.283185`.
        seed: int, `numpy.random.Generator` or `None`.

    Returns:
        Tuple of float64 arrays `(modes,)`: nu, theta, and the logarithms of the gains.

    Raises:
        ValueError: unless `0 <= r_min < r_max <= 1` and `0 < max_phase <= 2 pi`.

    Example:
        ```python
        nu, theta, log_gain = ring(64, r_min=0.9, r_max=0.999, max_phase=0.628, seed=0)
        assert 0.9 <= np.exp(-np.exp(nu)).min() and np.exp(theta).max() <= 0.628
        ```

    Reference:
        [LRU](https://arxiv.org/abs/2303.06349), lemma 3.2 and section 3.4.
    """
    check_number("r_min", r_min, low=0, high=1)
    check_number("r_max", r_max, low=0, high=1)
    if not r_min < r_max:
        raise ValueError(
            "`r_min` and `r_max` must satisfy 0 <= r_min < r_max <= 1. "
            f"Received: r_min={r_min}, r_max={r_max}"
        )
    check_number("max_phase", max_phase, low=0, high=2 * np.pi)
    if max_phase == 0:
        raise ValueError(f"`max_phase` must be positive. Received: max_phase={max_phase}")
    rng = np.random.default_rng(seed)
    smallest = np.finfo("float64").tiny  # of zero there is no logarithm
    radius, angle = rng.uniform(smallest, 1.0, size=(2, modes))
    nu = np.log(-0.5 * np.log(radius * (r_max**2 - r_min**2) + r_min**2))
    # |lambda| may round to 1, and 1 - |lambda|^2 to 0.
    log_gain = 0.5 * np.log(-np.expm1(-2.0 * np.exp(nu)))
    return nu, np.log(max_phase * angle), log_gain
