"""A short causal convolution and its SiLU on PyTorch, which keep their input alone."""

import torch
from torch.nn import functional

from keras_ssm.ops.backend.torch.pointwise_gpu import conv_silu_by_kernels
from keras_ssm.ops.backend.torch.tensors import by_autograd, must_be_plain, needs_autograd
from keras_ssm.ops.exporting import is_exporting

# Numbers that are computed together, which a CPU's caches hold.
TOGETHER = 2**16


def fused_conv_silu(x, kernel, bias, before, portable):
    """The SiLU of a causal convolution, by GPU kernels or on a CPU; `None` while a graph is made.

    Args:
        x: tensor `(batch, length, features)`, perhaps of fewer bits than the kernel.
        kernel: tensor `(K, features)`. The last entry multiplies the current sample.
        bias: tensor `(features,)` or `None`.
        before: tensor `(batch, K - 1, features)` or `None` (zero).
        portable: function of these tensors with the same result, for gradients of gradients.

    Returns:
        Tensor of the shape of x, in the dtype of the kernel.
    """
    if must_be_plain() or is_exporting():
        return None
    y = conv_silu_by_kernels(x, kernel, bias, before, portable)
    if y is not None or x.device.type != "cpu":
        return y
    return _ConvSilu.apply(portable, x.to(kernel.dtype), kernel, bias, before)


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, portable, x, kernel, bias, before):
        ctx.portable = portable
        ctx.save_for_backward(x, kernel, bias, before)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        for steps, window in _windows(x, kernel, before):
            y[:, steps] = functional.silu(_convolved(window, kernel, bias), inplace=True)
        return y

    @staticmethod
    def backward(ctx, upstream):
        x, kernel, bias, before = tensors = ctx.saved_tensors
        if needs_autograd(upstream):
            return None, *by_autograd(ctx.portable, tensors, upstream)
        reach = kernel.shape[0] - 1
        wide = torch.promote_types(x.dtype, torch.float32)  # of sums over the parts
        d_kernel = torch.zeros_like(kernel, dtype=wide)
        d_bias = torch.zeros_like(d_kernel[0])
        d_padded = x.new_empty((x.shape[0], reach + x.shape[1], x.shape[2]))
        d_padded[:, :reach] = 0
        for steps, window in _windows(x, kernel, before):
            convolved = _convolved(window, kernel, bias)
            slope = torch.ops.aten.silu_backward(upstream[:, steps], convolved)
            product = convolved  # its memory, for one product after another
            count, d_window = slope.shape[1], d_padded[:, steps.start : steps.stop + reach]
            torch.mul(slope, kernel[-1], out=d_window[:, reach:])
            for k in range(reach + 1):
                seen = slice(k, k + count)
                torch.mul(slope, window[:, seen], out=product)
                d_kernel[k] += product.sum((0, 1), dtype=wide)
                if k < reach:
                    d_window[:, seen].addcmul_(slope, kernel[k])
            d_bias += slope.sum((0, 1), dtype=wide)
        d_bias = None if bias is None else d_bias.to(bias.dtype)
        d_before = None if before is None else d_padded[:, :reach]
        return None, d_padded[:, reach:], d_kernel.to(kernel.dtype), d_bias, d_before


def _windows(x, kernel, before):
    """Some steps after others, and what the kernel sees of x there and just before."""
    (batch, length, features), reach = x.shape, kernel.shape[0] - 1
    count = max(reach, TOGETHER // (batch * features))
    if before is None:
        before = x.new_zeros((batch, reach, features))
    for start in range(0, length, count):
        steps = slice(start, min(start + count, length))
        if start == 0:
            yield steps, torch.cat([before, x[:, steps]], 1)
        else:
            yield steps, x[:, start - reach : steps.stop]


def _convolved(window, kernel, bias):
    count = window.shape[1] - kernel.shape[0] + 1
    y = window[:, :count] * kernel[0]
    for k in range(1, len(kernel)):
        y.addcmul_(window[:, k : k + count], kernel[k])
    return y if bias is None else y.add_(bias)
