"""What goes on around recurrences on an NVIDIA GPU, where the Triton kernels were found right."""

import importlib

import torch

from keras_ssm.ops.backend.torch import bank as torch_bank

SEQUENCES = (torch.float32, torch.bfloat16, torch.float16)

# The longest kernel of a convolution: its entries are written out.
MOST_TAPS = 4

# The most features of a norm: a program has whole rows in its registers.
WIDEST_ROW = 4096


def conv_silu_by_kernels(x, kernel, bias, before, portable):
    """`backend.fused_conv_silu` by GPU kernels, or `None` where they do not apply.

    The sequence may have 16 bits, and a step between its rows. All else is float32.
    """
    weights = [t for t in (kernel, bias, before) if t is not None]
    if len(kernel) > MOST_TAPS or not _readable(x) or not torch_bank.has_kernel(x, "conv"):
        return None
    if any(t.dtype != torch.float32 or t.device != x.device for t in weights):
        return None
    return _function("conv", "ConvSilu").apply(portable, x, kernel, bias, before)


def gated_by_kernels(y, z, kind, portable):
    """y f(z), f named by `kind`, by GPU kernels, or `None` where they do not apply."""
    alike = (y.shape, y.dtype, y.device) == (z.shape, z.dtype, z.device)
    if not alike or not _readable(y):
        return None
    if not torch_bank.has_kernel(y, "gate"):
        return None
    return _function("gates", "Gated").apply(portable, kind, y, z)


def glu_by_kernels(z, portable):
    """`backend.glu` by GPU kernels, or `None` where they do not apply."""
    if not _readable(z) or not torch_bank.has_kernel(z, "gate"):
        return None
    return _function("gates", "Glu").apply(portable, z)


def norm_by_kernels(x, y, weights, epsilon, dtype, portable):
    """`backend.fused_norm` by GPU kernels, or `None` where they do not apply."""
    if not torch_bank.has_kernel(x, "norm"):
        return None
    if x.shape[-1] > WIDEST_ROW or not _readable(x) or dtype not in SEQUENCES:
        return None
    if y is not None and not (_readable(y) and y.shape == x.shape and y.device == x.device):
        return None
    gamma, beta = weights()
    if any(t is not None and t.device != x.device for t in (gamma, beta)):
        return None
    return _function("norms", "Norm").apply(portable, epsilon, dtype, x, y, gamma, beta)


def _readable(x):
    return x.dtype in SEQUENCES and x.numel() > 0


def _function(module, name):
    return getattr(importlib.import_module(f"keras_ssm.ops.backend.torch.triton.{module}"), name)
