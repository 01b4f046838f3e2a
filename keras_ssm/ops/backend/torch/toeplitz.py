"""Toeplitz matrices on PyTorch, as views of their diagonals."""

import torch

from keras_ssm.ops.backend.torch.tensors import must_be_plain


def toeplitz(diagonals):
    """`ops.toeplitz` in one copy; its gradient sums row by row, without a larger tensor.

    On a GPU, where each row would be a launch, it sums at once.
    """
    if must_be_plain():
        return _rows_of_toeplitz(diagonals)
    return _Toeplitz.apply(diagonals)


def _rows_of_toeplitz(diagonals):
    n = (diagonals.shape[-1] + 1) // 2
    return diagonals.unfold(-1, n, 1).flip(-2)


class _Toeplitz(torch.autograd.Function):
    @staticmethod
    def forward(ctx, diagonals):
        return _rows_of_toeplitz(diagonals)

    @staticmethod
    def backward(ctx, upstream):
        if upstream.is_cuda:
            return sum_of_diagonals(upstream)
        n = upstream.shape[-1]
        total = upstream.new_zeros((*upstream.shape[:-2], 2 * n - 1))
        for i, row in enumerate(upstream.unbind(-2)):
            total[..., n - 1 - i : 2 * n - 1 - i] += row
        return total


def sum_of_diagonals(upstream):
    """Each row one place further than the one below it, then their sum."""
    n = upstream.shape[-1]
    rows = torch.nn.functional.pad(upstream.flip(-2), (0, n))
    rows = rows.reshape(*rows.shape[:-2], 2 * n * n)  # `flatten` has no batches of gradients
    rows = rows[..., : n * (2 * n - 1)]
    return rows.reshape(*rows.shape[:-1], n, 2 * n - 1).sum(-2)
