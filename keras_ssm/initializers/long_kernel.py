"""Initial kernels of long convolutions, in NumPy float64."""

import numpy as np

from keras_ssm.checks import check_choice

# Standard deviation of the largest entries, as published.
SCALES = {"random": 0.002, "double_exp": 0.02}


def long_kernel(shape, init="random", seed=None):
    """Returns a random kernel, of equal or of decaying entries.

    Args:
        shape: tuple `(planes, features, length)`.
        init: str. `"random"` (normal, of standard deviation 0.002) or `"double_exp"` (0.02 at lag
            0, decaying over the length, faster for later features). Defaults to `"random"`.
        seed: int, `numpy.random.Generator` or `None`.

    Returns:
        float64 array of the given shape.

    Raises:
        ValueError: for an unknown `init`.

    Example:
        ```python
        kernel = long_kernel((1, 8, 64), "double_exp", seed=0)
        ```

    Reference:
        [Long convolutions](https://arxiv.org/abs/2302.06646), section 3.
    """
    check_choice("init", init, SCALES)
    kernel = SCALES[init] * np.random.default_rng(seed).standard_normal(shape)
    if init == "random":
        return kernel
    _, features, length = shape
    rates = max(features // 2, 1) ** (np.arange(features) / features)
    return kernel * np.exp(-rates[:, None] * np.arange(length) / length)
