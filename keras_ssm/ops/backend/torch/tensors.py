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


def all_true(condition):
    """Whether a condition is True everywhere, on a CPU, where to look costs no waiting."""
    # A fake tensor is of another type.
    if type(condition) is not torch.Tensor or condition.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    try:
        return bool(condition.all())
    except RuntimeError:  # within `vmap`
        return False


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


def needs_autograd(*cotangents):
    """Whether a gradient is itself differentiated, or taken of many cotangents at once.

    That is so within `vmap`, and with `is_grads_batched`, for which PyTorch has batches of its own.
    """
    if torch.is_grad_enabled() or must_be_plain():
        return True
    return any(map(torch._C._functorch.is_legacy_batchedtensor, cotangents))


def by_autograd(function, tensors, cotangents):
    """The gradients of each tensor, some `None`, as functions that have gradients again."""
    with torch.enable_grad():
        # Where one tensor was computed from another, the way from it to that one is not ours.
        tensors = [t if t is None else t.view_as(t) for t in tensors]
        needed = [t for t in tensors if t is not None and t.requires_grad]
        outputs = function(*tensors)
        if torch.is_tensor(outputs):
            outputs, cotangents = [outputs], [cotangents]
        pairs = zip(outputs, cotangents, strict=True)
        # Of tensors that train alone some outputs know nothing.
        outputs, cotangents = zip(*[(y, d) for y, d in pairs if y.requires_grad], strict=True)
        gradients = torch.autograd.grad(
            outputs, needed, cotangents, create_graph=True, allow_unused=True
        )
    gradients = iter(gradients)
    return [next(gradients) if t is not None and t.requires_grad else None for t in tensors]
