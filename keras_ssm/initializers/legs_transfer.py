"""Exact transfer functions of HiPPO-LegS, in NumPy complex128."""

import numpy as np


def legs_state_transfer(s, state_dim):
    """Returns (s I - A)^-1 B of the LegS system without a matrix.

    x_k(s) = sqrt(2k + 1) s (s - 1) ... (s - k + 1) / ((s + 1) (s + 2) ... (s + k + 1)).

    Args:
        s: complex array of any shape. Laplace variable, `1j * w` on the frequency axis.
        state_dim: int. Size N of the state.

    Returns:
        complex128 array of shape `(*s.shape, N)`.

    Raises:
        ValueError: if `state_dim` is not positive.

    Example:
        ```python
        A, B = keras_ssm.initializers.transition("legs", 8)
        x = legs_state_transfer(2j, 8)
        assert np.allclose((2j * np.eye(8) - A) @ x, B)
        ```

    Reference:
        Solution of the triangular system of [HiPPO](https://arxiv.org/abs/2008.07669),
        theorem 2, by substitution.
    """
    s, k = _terms(s, state_dim)
    factors = np.concatenate([1 / (s + 1), (s - k[:-1]) / (s + k[1:] + 1)], axis=-1)
    return np.sqrt(2 * k + 1) * np.cumprod(factors, axis=-1)


def blaschke(s, state_dim):
    """Returns b(s), the product of (s - j) / (s + j + 1) over j = 0 .. N - 1.

    B^T (s I - A)^-1 B = 1 - b(s) for LegS, and every output of its normal part with input B/2
    is that of LegS divided by 1 + b(s): where b is near -1, S4D-LegS has a spike.

    Args:
        s: complex array of any shape. Laplace variable.
        state_dim: int. Size N of the state.

    Returns:
        complex128 array of the shape of `s`.

    Raises:
        ValueError: if `state_dim` is not positive.

    Example:
        ```python
        B = keras_ssm.initializers.transition("legs", 8)[1]
        assert np.allclose(B @ legs_state_transfer(2j, 8), 1 - blaschke(2j, 8))
        ```

    Reference:
        The spikes: [PTD](https://arxiv.org/abs/2310.01698), theorem 2.
    """
    s, j = _terms(s, state_dim)
    return np.prod((s - j) / (s + j + 1), axis=-1)


def _terms(s, state_dim):
    if state_dim < 1:
        raise ValueError(f"`state_dim` must be positive. Received: state_dim={state_dim}")
    return np.asarray(s, dtype=np.complex128)[..., None], np.arange(state_dim, dtype=np.float64)
