"""Toeplitz matrices without a gather, whose gradient would be a scatter."""

from keras import ops

from keras_ssm.ops import backend


def toeplitz(diagonals):
    """Returns matrices with the given diagonals.

    Args:
        diagonals: tensor `(..., 2 n - 1)`. Entry `n - 1 + d` fills the diagonal on which the
            column index exceeds the row index by d.

    Returns:
        Tensor `(..., n, n)`.

    Example:
        ```python
        toeplitz(ops.convert_to_tensor([[0.0, 1.0, 2.0]]))  # [[[1, 2], [0, 1]]]
        ```
    """
    by_views = backend.toeplitz(diagonals)
    if by_views is not None:
        return by_views
    width = diagonals.shape[-1] + 1
    n, lead = width // 2, diagonals.shape[:-1]
    padded = backend.pad(diagonals, [(0, 0)] * len(lead) + [(0, 1)])
    # Rows of period 2n read with a stride of 2n - 1 shift by one place a row.
    rows = ops.broadcast_to(padded[..., None, :], (*lead, n, width))
    flat = ops.reshape(rows, (*lead, n * width))[..., : n * (width - 1)]
    return ops.reshape(flat, (*lead, n, width - 1))[..., n - 1 :]
