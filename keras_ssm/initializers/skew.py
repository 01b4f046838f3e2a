"""Eigenvalues of the skew part of HiPPO-LegS, where DSS starts, in NumPy float64."""

import numpy as np

from keras_ssm.initializers.hippo import normal_eigenpairs


def skew_hippo(state_dim):
    """Returns the eigenvalues -1/2 + i w that a DSS layer starts from.

    The w are the positive eigenvalues of the skew-symmetric part of HiPPO-LegS of twice the
    size, the largest first: the modes of a DSS layer have no conjugates of their own.

    Args:
        state_dim: int. Number N of modes.

    Returns:
        complex128 array of shape `(N,)`.

    Raises:
        ValueError: if `state_dim` is not positive.

    Example:
        ```python
        Lambda = skew_hippo(64)
        assert Lambda.shape == (64,) and Lambda.imag[0] > Lambda.imag[-1] > 0
        ```

    Reference:
        [DSS](https://arxiv.org/abs/2203.14343), "Skew-Hippo" initialization.
    """
    if state_dim < 1:
        raise ValueError(f"`state_dim` must be positive. Received: state_dim={state_dim}")
    W, _ = normal_eigenpairs("legs", 2 * state_dim)
    return np.conj(W[:state_dim])
