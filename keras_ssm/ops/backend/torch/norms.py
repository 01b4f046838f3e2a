"""Norms on PyTorch."""

import torch

from keras_ssm.ops.backend.torch.pointwise_gpu import norm_by_kernels
from keras_ssm.ops.backend.torch.tensors import all_true
from keras_ssm.ops.exporting import is_exporting

# Up to here squares, and the power of three in a gradient, stay within float32.
LARGEST_SQUARED = 1e12


def fused_norm(x, y, weights, epsilon, dtype, portable):
    """x + y and its norm by a GPU kernel, or `None`."""
    if is_exporting():
        return None
    return norm_by_kernels(x, y, weights, epsilon, getattr(torch, dtype), portable)


def fused_layer_norm(x, gamma, beta, epsilon):
    """The layer norm of float32 by PyTorch's own kernel."""
    return torch.nn.functional.layer_norm(with_small_squares(x), x.shape[-1:], gamma, beta, epsilon)


def with_small_squares(x):
    """x, where a row with an entry beyond `LARGEST_SQUARED` is divided until that is 2^27.

    The norm of the quotient and its gradient are those of the row: what differs in it by no more
    than rounding is then still far more than what is added to squares. On a GPU nobody looks
    whether there is such a row, which would take more time than the division.
    """
    if x.numel() == 0:
        return x
    largest = x.detach()
    if x.device.type == "cpu" and all_true(
        (largest.amax() < LARGEST_SQUARED) & (largest.amin() > -LARGEST_SQUARED)
    ):
        return x
    largest = torch.linalg.vector_norm(largest, ord=float("inf"), dim=-1, keepdim=True)
    return x / torch.where(largest < LARGEST_SQUARED, torch.ones_like(largest), largest / 2.0**27)
