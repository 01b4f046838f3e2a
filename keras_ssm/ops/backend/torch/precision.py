"""Products on PyTorch in full float32, whatever its fast modes are."""

import contextlib
import functools
import threading

import torch

# PyTorch has one switch for the whole process. Exact products take turns at it, so that no thread
# restores the setting of another. Products of other code are exact in the meantime.
_TURN = threading.RLock()


def exact(product, *operands):
    """A product of tensors, `torch.bmm` or the like, that never drops to TF32.

    Where TF32 is allowed it is off during the product, and during those of its gradients.
    """
    if not _rounds(operands[0]):
        return product(*operands)
    if torch.compiler.is_compiling():  # a compiled graph cannot hold the switch
        return product(*(v.double() for v in operands)).float()
    return _Exact.apply(product, *operands)


def _rounds(x):
    """Whether a product of x would drop to TF32."""
    return x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32


class _Exact(torch.autograd.Function):
    """A function of tensors without TF32, and its gradients, which are such functions again."""

    @staticmethod
    def forward(ctx, product, *operands):
        ctx.product = product
        ctx.save_for_backward(*operands)
        with _without_tf32():
            return product(*(v.detach() for v in operands))

    @staticmethod
    def backward(ctx, *upstream):
        needed = ctx.needs_input_grad[1:]
        gradients = functools.partial(_gradients, ctx.product, needed, len(upstream))
        results = iter(_Exact.apply(gradients, *upstream, *ctx.saved_tensors))
        return None, *(next(results) if is_needed else None for is_needed in needed)


def _gradients(product, needed, count, *tensors):
    """The gradients of the operands that need one; `tensors` are `count` cotangents first."""
    upstream, operands = tensors[:count], tensors[count:]
    again = any(v.requires_grad for v in tensors)
    with torch.enable_grad():
        operands = [v if v.requires_grad else v.detach().requires_grad_() for v in operands]
        outputs = product(*operands)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sources = [v for v, is_needed in zip(operands, needed, strict=True) if is_needed]
        return torch.autograd.grad(
            outputs,
            sources,
            upstream,
            create_graph=again,
            allow_unused=True,
            materialize_grads=True,
        )


@contextlib.contextmanager
def _without_tf32():
    with _TURN:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
