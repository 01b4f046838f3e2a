"""Gradients of gradients of functions that have one of their own on PyTorch."""

import torch


def by_autograd(function, tensors, cotangents):
    """The gradients of each tensor as functions that autograd can take gradients of."""
    needed = [t for t in tensors if t.requires_grad]
    with torch.enable_grad():
        found = torch.autograd.grad(
            function(*tensors), needed, cotangents, create_graph=True, allow_unused=True
        )
    found = iter(found)
    return [next(found) if t.requires_grad else None for t in tensors]
