"""Powers dA^l of diagonal systems, from the logarithm of dA."""

import numpy as np
from keras import backend, ops

from keras_ssm.ops import pair
from keras_ssm.ops.backend import exact_einsum

# Rows of the two-level table: dA^(a T + b) = dA^(a T) dA^b with b < T.
TABLE_WIDTH = 128


def powers(log_dA, exponents):
    """Returns dA^l for each exponent, on a new last axis.

    Args:
        log_dA: pair of tensors `(features, modes)`.
        exponents: NumPy array or tensor `(steps,)`. Non-negative exponents.

    Returns:
        Pair of tensors `(features, modes, steps)`.
    """
    if isinstance(exponents, np.ndarray):
        exponents = ops.convert_to_tensor(
            exponents.astype(backend.standardize_dtype(log_dA[0].dtype))
        )
    return pair.exp((log_dA[0][..., None] * exponents, log_dA[1][..., None] * exponents))


def kernel(weights, log_dA, length):
    """Returns the convolution kernel K[l] = 2 Re(sum_n weights_n dA_n^l).

    Args:
        weights: pair of tensors `(channels, features, modes)`. C dB, or C dA x_0 for the
            response to a state.
        log_dA: pair of tensors `(features, modes)`.
        length: int or scalar tensor. Number of steps.

    Returns:
        Tensor `(channels, features, length)`.

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 9; the Vandermonde product is a
        matmul over a table with about 2 sqrt(length) exponentials per mode.
    """
    static = isinstance(length, int)
    width = min(TABLE_WIDTH, length) if static else TABLE_WIDTH
    rows = -(-length // width)
    dtype = backend.standardize_dtype(log_dA[0].dtype)
    starts = np.arange(rows) * width if static else ops.arange(0, rows) * width
    starts = starts if static else ops.cast(starts, dtype)
    coarse = powers(log_dA, starts)  # (features, modes, rows)
    fine = powers(log_dA, np.arange(width))  # (features, modes, width)
    left = pair.multiply((weights[0][..., None], weights[1][..., None]), coarse)
    left = ops.concatenate([left[0], -left[1]], axis=-2)  # (channels, features, 2 modes, rows)
    right = ops.concatenate([fine[0], fine[1]], axis=-2)
    table = 2.0 * exact_einsum("chnr,hnw->chrw", left, right)
    channels, features = weights[0].shape[:2]
    channels = ops.shape(table)[0] if channels is None else channels
    return ops.reshape(table, (channels, features, rows * width))[..., :length]


def state_response(state, log_dA, C, length):
    """Returns what an initial state contributes to the outputs, 2 Re(C dA^(l + 1) x).

    Args:
        state: tensor `(batch, features, 2 modes)`.
        log_dA: pair of tensors `(features, modes)`.
        C: pair of tensors `(channels, features, modes)`.
        length: int or scalar tensor. Number of steps.

    Returns:
        Tensor `(batch, length, channels * features)`.

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3, with u = 0.
    """
    channels, features, modes = C[0].shape
    next_state = pair.multiply(pair.exp(log_dA), pair.split(state))
    weights = pair.multiply(C, tuple(part[:, None] for part in next_state))
    weights = tuple(ops.reshape(part, (-1, features, modes)) for part in weights)
    response = kernel(weights, log_dA, length)  # (batch * channels, features, length)
    response = ops.reshape(response, (-1, channels * features, length))
    return ops.transpose(response, (0, 2, 1))
