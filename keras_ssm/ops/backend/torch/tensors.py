"""What functions with a gradient of their own share on PyTorch.

Complex numbers lie in real tensors in halves, or in pairs as PyTorch's complex memory is.
"""

import torch
from torch.autograd import forward_ad


def must_be_plain():
    """Whether a graph may only hold operations that PyTorch differentiates by itself.

    While compiling, and within `torch.func` or forward-mode differentiation: a function with a
    gradient of its own has no rules for these.
    """
    if torch.compiler.is_compiling():
        return True
    return (
        torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )


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


def by_autograd(function, tensors, cotangents):
    """The gradients of each tensor, some `None`, as functions that have gradients again."""
    needed = [t for t in tensors if t is not None and t.requires_grad]
    with torch.enable_grad():
        gradients = torch.autograd.grad(
            function(*tensors), needed, cotangents, create_graph=True, allow_unused=True
        )
    gradients = iter(gradients)
    return [next(gradients) if t is not None and t.requires_grad else None for t in tensors]
