"""From continuous to discrete time: x' = A x + B u sampled every dt."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.types import Pair, Tensor


def zoh(A: Pair, B: Pair, dt: Tensor) -> tuple[Pair, Pair]:
    """Discretises diagonal systems under a zero-order hold.

    Args:
        A: pair of tensors `(features, modes)`. Eigenvalues; must not vanish.
        B: pair of tensors `(features, modes)`. Input vectors.
        dt: tensor `(features, 1 or modes)`. Step, in units of time per sample.

    Returns:
        Tuple of pairs `(log_dA, dB)`: log of the state transition (dA = exp(log_dA)) and the
        discrete input vectors, each `(features, modes)`.

    Example:
        ```python
        A, B = (-ops.ones((1, 2)), ops.zeros((1, 2))), (ops.ones((1, 2)), ops.zeros((1, 2)))
        log_dA, dB = zoh(A, B, 0.5 * ops.ones((1, 1)))  # dA = e^-0.5, dB = 1 - e^-0.5
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 7.
    """
    fused = backend.fused_zoh(A, B, dt, _zoh)
    return _zoh(A, B, dt) if fused is None else fused


def _zoh(A, B, dt):
    """`zoh` in operations that every backend has."""
    log_dA = pair.scale(A, dt)
    return log_dA, pair.multiply(B, pair.divide(pair.expm1(log_dA), A))


def bilinear(A: Pair, B: Pair, dt: Tensor) -> tuple[Pair, Pair]:
    """Discretises diagonal systems with the bilinear (Tustin) rule.

    dA = (1 + z/2) / (1 - z/2) and dB = dt B / (1 - z/2) with z = dt A. The logarithm of dA is
    formed without first rounding dA, whose powers would otherwise lose the small decay.

    Args:
        A: pair of tensors `(features, modes)`. Eigenvalues with negative real part.
        B: pair of tensors `(features, modes)`. Input vectors.
        dt: tensor `(features, 1 or modes)`. Step, in units of time per sample.

    Returns:
        Tuple of pairs `(log_dA, dB)`, each `(features, modes)`.

    Example:
        ```python
        A, B = (-ops.ones((1, 2)), ops.zeros((1, 2))), (ops.ones((1, 2)), ops.zeros((1, 2)))
        log_dA, dB = bilinear(A, B, 1.0 * ops.ones((1, 1)))  # dA = 1/3, dB = 2/3
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3.
    """
    x, y = pair.scale(A, dt)
    quarter = 0.25 * y * y
    denominator = (1.0 - 0.5 * x) ** 2 + quarter
    numerator = (1.0 + 0.5 * x) ** 2 + quarter
    # |dA|^2 = 1 + change. Near 1 log1p keeps the digits of the decay, near 0 the quotient does.
    change = 2.0 * x / denominator
    strong = change < -0.5
    tiny = float(np.finfo(np.float32).tiny)
    ones, zeros = ops.ones_like(x), ops.zeros_like(x)
    real = 0.5 * ops.where(
        strong,
        ops.log(backend.maximum(ops.where(strong, numerator / denominator, ones), tiny)),
        ops.log1p(ops.where(strong, zeros, change)),
    )
    imag = backend.arctan2(y, 1.0 - 0.25 * x * x - quarter)
    dB = pair.multiply(pair.scale(B, dt), pair.divide((ones, 0.0 * y), (1.0 - 0.5 * x, -0.5 * y)))
    return (real, imag), dB


RULES = {"zoh": zoh, "bilinear": bilinear}
