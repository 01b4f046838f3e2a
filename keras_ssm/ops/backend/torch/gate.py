"""Gates on PyTorch, whose gradients compute their SiLU or sigmoid again."""

import torch
from torch.nn import functional

from keras_ssm.ops.backend.torch.pointwise_gpu import gated_by_kernels, glu_by_kernels
from keras_ssm.ops.backend.torch.tensors import by_autograd, must_be_plain, needs_autograd
from keras_ssm.ops.exporting import is_exporting


def gated(y, gate):
    """y silu(gate), for whose gradient y and the gate are kept, and not the SiLU."""
    unlike = y.shape != gate.shape or y.dtype != gate.dtype
    if unlike or must_be_plain() or is_exporting():
        return _plain(y, gate)
    product = gated_by_kernels(y, gate, "silu", _plain)
    return _Gated.apply(y, gate) if product is None else product


def sigmoid_gated(y, gate):
    """y sigmoid(gate)."""
    product = None if is_exporting() else gated_by_kernels(y, gate, "sigmoid", _by_sigmoid)
    return _by_sigmoid(y, gate) if product is None else product


def glu(z):
    """The first half of the last axis times the sigmoid of the second."""
    product = None if is_exporting() else glu_by_kernels(z, _glu)
    return _glu(z) if product is None else product


def _plain(y, gate):
    return y * functional.silu(gate)


def _by_sigmoid(y, gate):
    return y * torch.sigmoid(gate)


def _glu(z):
    return _by_sigmoid(*z.chunk(2, -1))


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, gate):
        ctx.save_for_backward(y, gate)
        return functional.silu(gate).mul_(y)

    @staticmethod
    def backward(ctx, slope):
        tensors = y, gate = ctx.saved_tensors
        if needs_autograd(slope):
            return tuple(by_autograd(_plain, tensors, slope))
        through = slope * y
        d_gate = torch.ops.aten.silu_backward(through, gate, grad_input=through)
        return functional.silu(gate).mul_(slope), d_gate
