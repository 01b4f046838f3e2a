"""Functions that keras.ops round to float32 on PyTorch, in the dtype of their arguments."""

import torch

arctan2 = torch.arctan2
cos = torch.cos
sin = torch.sin
tanh = torch.tanh


def matmul(a, b):
    """The matrix product: full float32, unless PyTorch was told to allow TF32."""
    return torch.matmul(a, b)


def einsum(equation, *operands):
    """Einsum of large operands, as exact as `matmul`."""
    return torch.einsum(equation, *operands)


def maximum(x, y):
    """The larger of a tensor and a tensor or number."""
    return torch.maximum(x, _like(x, y))


def minimum(x, y):
    """The smaller of a tensor and a tensor or number."""
    return torch.minimum(x, _like(x, y))


def _like(x, y):
    """A number where x is, without a copy from the host, which no CUDA graph may have."""
    return y if torch.is_tensor(y) else x.new_full((), y)


def cumsum(x, axis):
    """The sum of the entries up to each one."""
    return torch.cumsum(x, dim=axis)


def largest(x, axis, keepdims=False):
    """The largest entry along an axis."""
    return torch.amax(x, dim=axis, keepdim=keepdims)


def mean(x, axis, keepdims=False):
    """The mean over an axis or a tuple of axes."""
    return torch.mean(x, dim=axis, keepdim=keepdims)


def complex_of(re, im):
    """re + i im."""
    return torch.complex(re, im)


def pad(x, widths):
    """x with zeros before and after each axis: no copy without any.

    `keras.ops.pad` makes a named operation at each call, and for each name `torch.compile` would
    compile anew.
    """
    if not any(n for pair in widths for n in pair):
        return x
    flat = [n for pair in reversed(widths) for n in pair]
    return torch.nn.functional.pad(x, flat)
