"""The selective scan of Mamba by Triton kernels, with its gradient."""

import torch

from keras_ssm.ops.backend.scan_plan import ScanPlan
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton import selective as kernels
from keras_ssm.ops.backend.torch.triton.selective_slopes import slopes


class SelectiveScan(torch.autograd.Function):
    """`apply(plain, x, low, kernel, bias, mask, A, B, C, D, initial)`: outputs and last state.

    `low` are step sizes or, with a bias, what softplus makes sizes of, after a product with the
    kernel if there is one; where the mask is False a size is 0. Kernel, bias, mask, D and initial
    may be `None`. `plain` is a function of the same tensors with the same results, for gradients of
    gradients.
    """

    @staticmethod
    def forward(ctx, plain, *tensors):
        ctx.plain = plain
        x, low, kernel, bias, mask, A, B, C, D, initial = (_whole(t) for t in tensors)
        raw, walk = _projected(low, kernel), _Walk(x, A, bias, mask)
        start = None if initial is None else initial.mT.contiguous()
        plan = walk.plan
        if plan.G > 1:
            start = walk.starts(x, raw, bias, mask, A, B, start, ADJOINT=False)
        needed = any(ctx.needs_input_grad)
        y, last = torch.empty_like(x), walk.states(plan.batch)
        kept = walk.states(plan.kept) if needed else last
        walk.launch(
            kernels.outputs,
            x,
            raw,
            *walk.given(bias, mask),
            A,
            B,
            C,
            x if D is None else D,
            last if start is None else start,
            y,
            kept,
            last,
            *walk.sizes,
            DIRECT=D is not None,
            STARTED=start is not None,
            KEEP=needed,
            EVERY=plan.every,
            **walk.options,
        )
        ctx.save_for_backward(*tensors, kept if needed else None)
        return y, last.mT.contiguous()

    @staticmethod
    def backward(ctx, dy, d_last):
        *tensors, kept = ctx.saved_tensors
        if needs_autograd(dy, d_last):
            return None, *by_autograd(ctx.plain, tensors, (dy, d_last))
        x, low, kernel, bias, mask, A, B, C, D, initial = (_whole(t) for t in tensors)
        raw, walk = _projected(low, kernel), _Walk(x, A, bias, mask)
        dy, later = dy.contiguous(), d_last.mT.contiguous()
        plan = walk.plan
        if plan.G > 1:
            later = walk.starts(dy, raw, bias, mask, A, C, later, ADJOINT=True)
        dx, d_raw, d_initial = torch.empty_like(x), torch.empty_like(raw), walk.states(plan.batch)
        dA, dD = walk.states(plan.rows), A.new_empty((plan.rows, plan.features))
        dB, dC = (A.new_empty((plan.blocks, *B.shape)) for _ in "BC")
        walk.launch(
            slopes,
            x,
            raw,
            *walk.given(bias, mask),
            A,
            B,
            C,
            x if D is None else D,
            dy,
            kept,
            later,
            walk.states(plan.rows * plan.every),
            dx,
            d_raw,
            dA,
            dB,
            dC,
            dD,
            d_initial,
            *walk.sizes,
            DIRECT=D is not None,
            EVERY=plan.every,
            **walk.options,
        )
        d_bias = None if bias is None else d_raw.float().sum((0, 1)).to(bias.dtype)
        dB, dC = (d.sum(0).to(B.dtype) for d in (dB, dC))
        d_initial = None if initial is None else d_initial.mT
        dD = None if D is None else dD.sum(0)
        d_low, d_kernel = d_raw, None
        if kernel is not None:
            d_low = torch.matmul(d_raw, kernel.mT)
            d_kernel = torch.matmul(low.flatten(0, 1).mT, d_raw.flatten(0, 1))
        return None, dx, d_low, d_kernel, d_bias, None, dA.sum(0).mT, dB, dC, dD, d_initial


class _Walk:
    """The kernels on sequences of one shape."""

    def __init__(self, x, A, bias, mask):
        self.plan = plan = ScanPlan(*x.shape, A.shape[1])
        self._like, self._shape = A, (plan.states, plan.features)
        self.grid = plan.blocks, plan.rows
        self.sizes = plan.length, plan.features, plan.states, plan.G, plan.S
        self.tile = {"NM": plan.NM, "BH": plan.block, "num_warps": -(-plan.block // 32)}
        self.options = {**self.tile, "T": plan.T}
        self.options.update(PROJECTED=bias is not None, MASKED=mask is not None)

    def launch(self, kernel, *arguments, **options):
        """Runs a kernel on all blocks of features and all segments."""
        with torch.cuda.device_of(self._like):
            kernel[self.grid](*arguments, **options)

    def states(self, count):
        """New memory for states."""
        return self._like.new_empty((count, *self._shape))

    def given(self, bias, mask):
        """Bias and mask, or anything in their place."""
        return self._like if bias is None else bias, self._like if mask is None else mask

    def starts(self, x, raw, bias, mask, A, W, initial, ADJOINT):
        """The states before each segment, in the way of the walk."""
        plan = self.plan
        end, start = self.states(plan.rows), self.states(plan.rows)
        total = A.new_empty((plan.rows, plan.features))
        given = self.given(bias, mask)
        arguments = x, raw, *given, A, W, end, total, *self.sizes
        self.launch(kernels.ends, *arguments, ADJOINT=ADJOINT, **self.options)
        with torch.cuda.device_of(A):
            kernels.starts[(plan.blocks, plan.batch)](
                A,
                end,
                total,
                end if initial is None else initial,
                start,
                *self.sizes[1:4],
                INITIAL=initial is not None,
                REVERSE=ADJOINT,
                **self.tile,
            )
        return start


def _projected(low, kernel):
    return low if kernel is None else torch.matmul(low, kernel)


def _whole(x):
    if x is None:
        return None
    return (x.to(torch.int8) if x.dtype == torch.bool else x).contiguous()
