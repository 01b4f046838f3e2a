"""Initial values of Mamba and Mamba-2, in NumPy float64."""

import numpy as np

from keras_ssm.initializers.timescale import log_uniform_step


def step_bias(size, dt_min=1e-3, dt_max=1e-1, dt_floor=1e-4, seed=None):
    """Returns what softplus turns into steps drawn uniformly on a logarithmic scale.

    Args:
        size: int. Number of steps.
        dt_min: float. Smallest step. Defaults to `1e-3`.
        dt_max: float. Largest step. Defaults to `1e-1`.
        dt_floor: float. No step is smaller. Defaults to `1e-4`.
        seed: int, `numpy.random.Generator` or `None`.

    Returns:
        float64 array `(size,)`.

    Raises:
        ValueError: unless `0 < dt_min <= dt_max`.

    Example:
        ```python
        bias = step_bias(64, seed=0)
        assert np.log1p(np.exp(bias)).min() >= 1e-3
        ```

    Reference:
        [Mamba](https://arxiv.org/abs/2312.00752), section 3.6.
    """
    dt = np.maximum(np.exp(log_uniform_step((size,), dt_min, dt_max, seed)), dt_floor)
    return dt + np.log(-np.expm1(-dt))


def fan_in_uniform(shape, fan_in, seed=None):
    """Returns values drawn uniformly up to 1 / sqrt(fan_in), as PyTorch's layers start.

    Args:
        shape: tuple of int.
        fan_in: int. Inputs of one output.
        seed: int, `numpy.random.Generator` or `None`.

    Returns:
        float64 array of the given shape.

    Example:
        ```python
        assert np.abs(fan_in_uniform((4, 8), 4, seed=0)).max() <= 0.5
        ```
    """
    bound = fan_in**-0.5
    return np.random.default_rng(seed).uniform(-bound, bound, size=shape)
