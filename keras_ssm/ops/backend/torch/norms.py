"""Layer norm on PyTorch."""

import torch

from keras_ssm.ops.backend.torch.tensors import all_true

# Up to here squares, and the power of three in a gradient, stay within float32.
LARGEST_SQUARED = 1e12


def fused_layer_norm(x, gamma, beta, epsilon):
    """The layer norm of float32 by PyTorch's own kernel."""
    return torch.nn.functional.layer_norm(with_small_squares(x), x.shape[-1:], gamma, beta, epsilon)


def with_small_squares(x):
    """x, where a row with an entry beyond `LARGEST_SQUARED` is divided until that is 1,000.

    The norm of such a row is the same, whatever it is divided by, and so is its gradient: nothing
    that is added to its squares can be seen. On a GPU nobody looks whether there is one, which
    would take more time than the division.
    """
    if x.numel() == 0:
        return x
    largest = x.detach()
    if x.device.type == "cpu" and all_true(
        (largest.amax() < LARGEST_SQUARED) & (largest.amin() > -LARGEST_SQUARED)
    ):
        return x
    largest = torch.linalg.vector_norm(largest, ord=float("inf"), dim=-1, keepdim=True)
    return x / torch.where(largest < LARGEST_SQUARED, torch.ones_like(largest), largest / 1e3)
