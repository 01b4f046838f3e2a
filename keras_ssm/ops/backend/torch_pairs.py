"""Complex numbers in real tensors on PyTorch: in halves, or in pairs as its complex memory is."""

import torch


def in_pairs(x, axis=-1):
    """Real parts, then imaginary parts, to real and imaginary part of each mode in turn."""
    axis %= x.ndim
    return x.unflatten(axis, (2, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def in_halves(x, axis=-1):
    """Undoes `in_pairs`."""
    axis %= x.ndim
    return x.unflatten(axis, (-1, 2)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def as_complex(x):
    """A complex view of pairs on the last axis."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def as_pairs(x):
    """Undoes `as_complex`."""
    return torch.view_as_real(x).flatten(-2)
