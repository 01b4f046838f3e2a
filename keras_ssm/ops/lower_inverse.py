"""The inverse of unit lower triangular matrices in batched matmuls, without a solver."""

import numpy as np
from keras import ops

from keras_ssm.ops.backend import exact_einsum

# Blocks up to this size are inverted under masks; larger ones from their halves. Measured.
MASKED = 16


def unit_lower_inverse(x):
    """The inverse of I + x, of which the entries of x below the diagonal count.

    With A and B on the diagonal and C below, the inverse has A^-1, B^-1 and -B^-1 C A^-1. A product
    of the powers of x would need as few matmuls, and lose all digits: for equal keys and beta = 2
    the powers grow to 1e28, where the inverse has no entry above 2.

    Args:
        x: tensor `(..., m, m)` of a known size m.

    Returns:
        Tensor `(..., m, m)`.
    """
    m = x.shape[-1]
    size = 2 ** (m - 1).bit_length()
    if size > m:
        x = ops.pad(x, [(0, 0)] * (len(x.shape) - 2) + [(0, size - m)] * 2)
    inverse = _halved(x)
    return inverse[..., :m, :m] if size > m else inverse


def _halved(x):
    size = x.shape[-1]
    if size <= MASKED:
        return _masked(x)
    s = size // 2
    both = _halved(ops.stack([x[..., :s, :s], x[..., s:, s:]]))
    first, second = both[0], both[1]
    below = exact_einsum("...ij,...jk->...ik", second, x[..., s:, :s])
    below = -exact_einsum("...ij,...jk->...ik", below, first)
    top = ops.concatenate([first, ops.zeros_like(first)], axis=-1)
    return ops.concatenate([top, ops.concatenate([below, second], axis=-1)], axis=-2)


def _masked(x):
    """The same for all pairs of blocks of 1, 2, 4 ... at once, as products of whole matrices."""
    constant = lambda z: ops.cast(ops.convert_to_tensor(z), x.dtype)
    size = x.shape[-1]
    inverse = constant(np.eye(size))
    for s in (2**i for i in range((size - 1).bit_length())):
        block = np.arange(size) // s
        pairs = (block[:, None] == block[None] + 1) & (block[:, None] % 2 == 1)
        part = x * constant(pairs)
        if s > 1:
            part = exact_einsum("...ij,...jk->...ik", inverse, part)
            part = exact_einsum("...ij,...jk->...ik", part, inverse)
        inverse = inverse - part
    return inverse if size > 1 else ops.ones_like(x)
