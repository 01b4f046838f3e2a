"""Random matrices of fixed variance, in NumPy float64."""

import numpy as np

# Standard deviation of a standard normal number that is truncated at two.
TRUNCATED_STDDEV = 0.87962566103423978


def lecun_normal(shape, fan_in, rng=None):
    """Draws truncated normal numbers of variance 1/fan_in.

    The truncation is at two standard deviations of the normal numbers; the variance is that of
    what remains.

    Args:
        shape: tuple of int. Shape of the result.
        fan_in: int. Number of inputs of a unit.
        rng: int, `numpy.random.Generator` or `None`. Source of the numbers. Defaults to `None`.

    Returns:
        float64 array of the given shape.

    Raises:
        ValueError: if `fan_in` is not positive.

    Example:
        ```python
        B = lecun_normal((64, 128), fan_in=128, rng=0)
        assert abs(B.std() - 128**-0.5) < 0.01
        ```

    Reference:
        LeCun et al., Efficient BackProp (1998), section 4.6.
    """
    if fan_in <= 0:
        raise ValueError(f"`fan_in` must be positive. Received: fan_in={fan_in}")
    rng = np.random.default_rng(rng)
    values = np.array(rng.standard_normal(shape))
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(np.count_nonzero(outside))
    return values / (TRUNCATED_STDDEV * np.sqrt(fan_in))
