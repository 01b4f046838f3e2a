"""Time scales of state-space models, in NumPy float64."""

import numpy as np

from keras_ssm.checks import check_number


def log_uniform_step(shape, dt_min=1e-3, dt_max=1e-1, seed=None):
    """Returns log(dt), with dt drawn uniformly on a logarithmic scale.

    Args:
        shape: tuple of int. Shape of the result.
        dt_min: float. Smallest step, in units of time per sample. Defaults to `1e-3`.
        dt_max: float. Largest step. Defaults to `1e-1`.
        seed: int, `numpy.random.Generator` or `None`.

    Returns:
        float64 array of the given shape.

    Raises:
        ValueError: unless these are numbers and `0 < dt_min <= dt_max <= 1e6`.

    Example:
        ```python
        dt = np.exp(log_uniform_step((128, 1), 1e-3, 1e-1, seed=0))
        assert dt.min() >= 1e-3 and dt.max() <= 1e-1
        ```

    Reference:
        [How to Train Your HiPPO](https://arxiv.org/abs/2206.12037), section 5.
    """
    check_number("dt_min", dt_min)
    check_number("dt_max", dt_max, high=1e6)
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            "`dt_min` and `dt_max` must satisfy 0 < dt_min <= dt_max. "
            f"Received: dt_min={dt_min}, dt_max={dt_max}"
        )
    rng = np.random.default_rng(seed)
    return rng.uniform(np.log(dt_min), np.log(dt_max), size=shape)
