import math
from fractions import Fraction

import numpy as np

from keras_ssm.checks import check_number


def resample(x: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Brings a signal to another sampling rate, by a polyphase filter (`scipy.signal`).

    Frequencies above half the lower rate are filtered out first. Both ends of the signal are
    continued by a straight line, so that an offset makes no step there.

    Args:
        x: array `(length,)` or `(length, features)`. Time is the first axis.
        rate: float. Samples a second of x.
        new_rate: float. Samples a second of the result.

    Returns:
        Float array with `ceil(length * new_rate / rate)` samples: float64 for float64, else
        float32. Without a change of rate x itself.

    Raises:
        ValueError: for rates that are not positive or whose ratio is no fraction of numbers
            below 100,000, an empty signal, or something else than real numbers.

    Example:
        ```python
        tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        half = keras_ssm.signals.resample(tone, 16000, 8000)  # (8000,)
        ```
    """
    for name, value in (("rate", rate), ("new_rate", new_rate)):
        check_number(name, value, low=1e-6)
    x = np.asarray(x)
    if x.ndim not in (1, 2) or x.dtype.kind not in "fiu" or not len(x):
        raise ValueError(
            "`x` must be real numbers of shape (length,) or (length, features), with at least one "
            f"sample. Received: shape {x.shape}, dtype {x.dtype}"
        )
    if rate == new_rate:
        return x
    ratio = _fraction(new_rate) / _fraction(rate)
    closest = ratio.limit_denominator(99_999)
    if closest.numerator > 99_999 or not math.isclose(closest, ratio, rel_tol=1e-9):
        raise ValueError(
            "`rate` and `new_rate` must have a ratio of two numbers below 100,000. "
            f"Received: rate={rate}, new_rate={new_rate}"
        )
    from scipy.signal import resample_poly

    dtype = "float64" if x.dtype == "float64" else "float32"
    resampled = resample_poly(
        x.astype("float64"), closest.numerator, closest.denominator, axis=0, padtype="line"
    )
    return resampled.astype(dtype)


def _fraction(rate):
    """A rate as people write it: 22050.5 is 44101 / 2."""
    return Fraction(str(float(rate)))
