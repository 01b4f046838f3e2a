"""Positions and decays of the filters of Hyena, in NumPy float64."""

import math

import numpy as np

# What is left of the filter of the last and of the first feature at these shares of the length.
LEFT, FASTEST, SLOWEST = 1e-2, 0.3, 1.5


def filter_positions(length, emb_dim=3):
    """Returns what the network of an implicit filter reads: the time and its waves.

    Args:
        length: int. Lags of the filter.
        emb_dim: int. Odd number of features: the time from 0 to 1, and the cosines and negative
            sines of `(emb_dim - 1) / 2` frequencies. Defaults to `3`.

    Returns:
        float64 array `(length, emb_dim)`.

    Example:
        ```python
        positions = filter_positions(64, 5)
        assert positions[-1, 0] == 1
        ```

    Reference:
        [Hyena](https://arxiv.org/abs/2302.10866), section 3.3 and appendix D.3.
    """
    bands = (emb_dim - 1) // 2
    angles = 2 * math.pi * np.arange(length)[:, None] / length
    angles = angles * np.linspace(1e-4, bands - 1, bands)
    times = np.linspace(0, 1, length)[:, None]
    return np.concatenate([times, np.cos(angles), -np.sin(angles)], axis=-1)


def filter_decay(features):
    """Returns the rates at which filters decay over their length, from slow to fast.

    Args:
        features: int. Number of filters.

    Returns:
        float64 array `(features,)`, positive.

    Example:
        ```python
        decay = filter_decay(8)
        assert np.exp(-0.3 * decay[-1]).round(6) == 0.01
        ```

    Reference:
        [Hyena](https://arxiv.org/abs/2302.10866), section 3.3.
    """
    return np.linspace(-math.log(LEFT) / SLOWEST, -math.log(LEFT) / FASTEST, features)
