"""Powers dA^l of diagonal systems, and the kernel of a bank from a two-level table."""

import math

import keras
import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import Pair, Tensor

# Rows of the two-level table: dA^(a T + b) = dA^(a T) dA^b with b < T.
TABLE_WIDTH = 128

# Logarithm of 1e-26.
NEGLIGIBLE = -60.0


def powers(log_dA: Pair, exponents: Tensor) -> Pair:
    """Returns dA^l for each exponent, on a new last axis.

    Args:
        log_dA: pair of tensors `(features, modes)`.
        exponents: NumPy array or tensor `(steps,)`. Non-negative exponents.

    Returns:
        Pair of tensors `(features, modes, steps)`.
    """
    dtype = keras.backend.standardize_dtype(log_dA[0].dtype)
    if isinstance(exponents, np.ndarray):
        exponents = ops.convert_to_tensor(exponents.astype(dtype))
    return backend.with_gradient(_powers, _gradient_of_powers)(*log_dA, ops.cast(exponents, dtype))


def power(log_dA: Pair, exponent: float | Tensor) -> Pair:
    """Returns dA^exponent, and zero where that is smaller than 1e-26.

    Nothing notices such numbers, but processors are slow on the smallest floats.

    Args:
        log_dA: pair of tensors.
        exponent: float, or a tensor that broadcasts against them.

    Returns:
        Pair of tensors.
    """
    growth, angle = pair.scale(log_dA, exponent)
    return pair.exp((ops.where(growth < NEGLIGIBLE, -np.inf, growth), angle))


def known_powers(log_dA: Pair, table: Pair) -> Pair:
    """Returns `table`, which holds the powers dA^l for l from 0 on, and gives it a gradient.

    The gradient is the first derivative of `powers`.

    Args:
        log_dA: pair of tensors `(features, modes)`.
        table: pair of tensors `(features, modes, steps)`. What `powers` returned for them.

    Returns:
        Pair of tensors `(features, modes, steps)`.
    """

    def forward(real, imag, *table):
        return table, table

    def backward(table, cotangents):
        exponents = ops.arange(table[0].shape[-1], dtype=table[0].dtype)
        none = [ops.zeros_like(part) for part in table]
        return *_gradient_of_powers((*table, exponents), cotangents)[:2], *none

    return backend.with_gradient(forward, backward)(*log_dA, *table)


def _powers(real, imag, exponents):
    re, im = power((real[..., None], imag[..., None]), exponents)
    return (re, im), (re, im, exponents)


def _gradient_of_powers(residuals, cotangents):
    """By the powers themselves: autodiff would compute sines and cosines once more."""
    re, im, exponents = residuals
    d_re, d_im = cotangents
    real = ops.sum(exponents * (d_re * re + d_im * im), axis=-1)
    imag = ops.sum(exponents * (d_im * re - d_re * im), axis=-1)
    return real, imag, ops.zeros_like(exponents)


def kernel(bank, length: int | Tensor) -> Tensor:
    """Returns the convolution kernel K[l] = C dA^l dB of a bank.

    Args:
        bank: `DiagonalBank` or `DenseBank`.
        length: int, or for a `DiagonalBank` also a scalar tensor. Number of steps.

    Returns:
        Tensor `(channels, features, length)`.

    Example:
        ```python
        half = ops.convert_to_tensor([[-0.6931472]]), ops.zeros((1, 1))  # log 0.5
        one = ops.ones((1, 1)), ops.zeros((1, 1))
        C = 0.5 * ops.ones((1, 1, 1)), ops.zeros((1, 1, 1))
        bank = keras_ssm.ops.DiagonalBank(half, one, C)
        kernel(bank, 3)  # 1, 0.5, 0.25
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 9; the Vandermonde product is a
        matmul over a table with about 2 sqrt(length) powers of each mode.
    """
    width = _table_width(bank, length)
    rows = (length + width - 1) // width
    coarse = bank.from_state(bank.readout, 0, rows, stride=width)
    fine = bank.into_state(width)
    table = exact_einsum("chnr,hnw->chrw", coarse, fine)
    channels, features = table.shape[:2]
    return ops.reshape(table, (channels, features, rows * width))[..., :length]


def _table_width(bank, length):
    """A short kernel has a square table: exponentials, sines and cosines cost more than a matmul.

    The powers of a matrix are products, of which a table would need more.
    """
    if not isinstance(length, int) or length > TABLE_WIDTH:
        return TABLE_WIDTH
    return 1 << (math.isqrt(length - 1).bit_length()) if hasattr(bank, "log_dA") else length


def with_skip(K: Tensor, D: Tensor) -> Tensor:
    """A kernel whose entry for the current sample holds the skip as well.

    Args:
        K: tensor `(..., steps)`. Kernels from lag 0 on.
        D: tensor `(...)`. What a sample adds to its own output.

    Returns:
        Tensor `(..., steps)`.

    Example:
        ```python
        with_skip(ops.ones((1, 3)), ops.ones((1,)))  # [[2, 1, 1]]
        ```
    """
    return ops.concatenate([K[..., :1] + D[..., None], K[..., 1:]], axis=-1)
