"""The associative scan that PyTorch and TensorFlow lack, in complex arithmetic."""


def associative_scan(a, b, concatenate, interleave):
    """Scans (a_i, b_i) o (a_j, b_j) = (a_j a_i, a_j b_i + b_j), odd and even places in turn.

    Args:
        a, b: complex tensors `(batch, length, modes)`.
        concatenate: function of a list of tensors, along axis 1.
        interleave: function of the tensors at the even and at the odd places of axis 1.

    Returns:
        Tuple of tensors like a and b.

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2.
    """
    n = a.shape[1]
    if n < 2:
        return a, b
    even, odd, later = slice(0, n - 1, 2), slice(1, None, 2), slice(2, None, 2)
    odd_a, odd_b = associative_scan(
        a[:, odd] * a[:, even], a[:, odd] * b[:, even] + b[:, odd], concatenate, interleave
    )
    ends = slice(None, -1) if n % 2 == 0 else slice(None)
    even_a = concatenate([a[:, :1], a[:, later] * odd_a[:, ends]])
    even_b = concatenate([b[:, :1], a[:, later] * odd_b[:, ends] + b[:, later]])
    return interleave(even_a, odd_a), interleave(even_b, odd_b)
