"""A short causal convolution and its SiLU as Triton kernels, which keep their input alone.

    c_t = bias + sum_l w_l x_(t - l)        y_t = silu(c_t)        w_l the kernel, last row first

A program takes some steps of some features, which lie beside each other in memory. The gradient
computes c anew, of these steps and of the next ones that they reach.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton.walk import total_of

# Steps and features of a tile, and steps of a program, forward and back.
T, FEATURES, WARPS = 4, 128, 4
STEPS, STEPS_BACK = 16, 128

SIZES = ["length", "S", "G"]


@triton.jit
def _tap(kernel, h, features, LAG: tl.constexpr, TAPS: tl.constexpr):
    """The entry of the kernel for what came LAG steps before, `(1, features)`."""
    at = kernel + (TAPS - 1 - LAG) * features + h
    return tl.load(at, mask=(h < features) & (LAG < TAPS), other=0.0).to(tl.float32)[None, :]


@triton.jit
def _taps(kernel, bias, h, features, TAPS: tl.constexpr, BIASED: tl.constexpr):
    w0 = _tap(kernel, h, features, 0, TAPS)
    w1 = _tap(kernel, h, features, 1, TAPS)
    w2 = _tap(kernel, h, features, 2, TAPS)
    w3 = _tap(kernel, h, features, 3, TAPS)
    offset = 0.0 * w0
    if BIASED:
        offset = tl.load(bias + h, mask=h < features, other=0.0).to(tl.float32)[None, :]
    return w0, w1, w2, w3, offset


@triton.jit
def _seen(x, before, t, h, length, features, step, TAPS: tl.constexpr, STARTED: tl.constexpr):
    """Samples of one row, `(T, features)`: before it begins those of `before`, or zero."""
    inside = ((t >= 0) & (t < length))[:, None] & (h < features)[None, :]
    at = x + t.to(tl.int64)[:, None] * step + h[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if STARTED:
        earlier = ((t < 0) & (t > -TAPS))[:, None] & (h < features)[None, :]
        at = before + (t + TAPS - 1)[:, None] * features + h[None, :]
        value += tl.load(at, mask=earlier, other=0.0).to(tl.float32)
    return value


@triton.jit
def _sum_of_taps(offset, w0, w1, w2, w3, x0, x1, x2, x3, TAPS: tl.constexpr):
    """Without the entries that there are not: 0 times infinity would be no number."""
    c = offset + w0 * x0
    if TAPS > 1:
        c += w1 * x1
    if TAPS > 2:
        c += w2 * x2
    if TAPS > 3:
        c += w3 * x3
    return c


@triton.jit
def _slope(dy, c, t, h, length, features, step):
    """The gradient of c, `(T, features)`: 0 where there is no output."""
    inside = ((t >= 0) & (t < length))[:, None] & (h < features)[None, :]
    at = dy + t.to(tl.int64)[:, None] * step + h[None, :]
    upstream = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    share = 1.0 / (1.0 + tl.exp(-c))
    return tl.where(inside, upstream * share * (1.0 + c * (1.0 - share)), 0.0)


@triton.jit(do_not_specialize=SIZES)
def outputs(
    x,
    kernel,
    bias,
    before,
    y,
    length,
    features,
    row,
    step,
    G,
    S,
    T: tl.constexpr,
    BH: tl.constexpr,
    TAPS: tl.constexpr,
    BIASED: tl.constexpr,
    STARTED: tl.constexpr,
):
    blocks = (features + BH - 1) // BH
    program = tl.program_id(0) // blocks
    h = tl.program_id(0) % blocks * BH + tl.arange(0, BH)
    b = (program // G).to(tl.int64)
    first = program % G * S
    x += b * row
    before += b * (TAPS - 1) * features
    y += b * length * features
    w0, w1, w2, w3, offset = _taps(kernel, bias, h, features, TAPS, BIASED)
    for start in range(first, first + S, T):
        t = start + tl.arange(0, T)
        x0 = _seen(x, before, t, h, length, features, step, TAPS, STARTED)
        x1 = _seen(x, before, t - 1, h, length, features, step, TAPS, STARTED)
        x2 = _seen(x, before, t - 2, h, length, features, step, TAPS, STARTED)
        x3 = _seen(x, before, t - 3, h, length, features, step, TAPS, STARTED)
        c = _sum_of_taps(offset, w0, w1, w2, w3, x0, x1, x2, x3, TAPS)
        at = y + t.to(tl.int64)[:, None] * features + h[None, :]
        inside = (t < length)[:, None] & (h < features)[None, :]
        tl.store(at, (c / (1.0 + tl.exp(-c))).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def slopes(
    x,
    kernel,
    bias,
    before,
    dy,
    dx,
    d_before,
    sums,
    length,
    features,
    row,
    step,
    dy_row,
    dy_step,
    G,
    S,
    T: tl.constexpr,
    BH: tl.constexpr,
    TAPS: tl.constexpr,
    BIASED: tl.constexpr,
    STARTED: tl.constexpr,
):
    """The gradients of the samples, and for each program the sums of those of kernel and bias.

    With STARTED the first T steps come before the sequence, and are those of `before`.
    """
    blocks = (features + BH - 1) // BH
    program = tl.program_id(0) // blocks
    h = tl.program_id(0) % blocks * BH + tl.arange(0, BH)
    b = (program // G).to(tl.int64)
    first = program % G * S
    if STARTED:
        first -= T
    x += b * row
    dy += b * dy_row
    before += b * (TAPS - 1) * features
    d_before += b * (TAPS - 1) * features
    dx += b * length * features
    w0, w1, w2, w3, offset = _taps(kernel, bias, h, features, TAPS, BIASED)
    k0 = tl.full([T, BH], 0.0, tl.float32)
    k1 = k0
    k2 = k0
    k3 = k0
    d_bias = k0
    for start in range(first, first + S, T):
        t = start + tl.arange(0, T)
        x3 = _seen(x, before, t - 3, h, length, features, step, TAPS, STARTED)
        x2 = _seen(x, before, t - 2, h, length, features, step, TAPS, STARTED)
        x1 = _seen(x, before, t - 1, h, length, features, step, TAPS, STARTED)
        x0 = _seen(x, before, t, h, length, features, step, TAPS, STARTED)
        c = _sum_of_taps(offset, w0, w1, w2, w3, x0, x1, x2, x3, TAPS)
        g0 = _slope(dy, c, t, h, length, features, dy_step)
        k0 += g0 * x0
        k1 += g0 * x1
        k2 += g0 * x2
        k3 += g0 * x3
        d_bias += g0
        n1 = _seen(x, before, t + 1, h, length, features, step, TAPS, STARTED)
        c = _sum_of_taps(offset, w0, w1, w2, w3, n1, x0, x1, x2, TAPS)
        g1 = _slope(dy, c, t + 1, h, length, features, dy_step)
        n2 = _seen(x, before, t + 2, h, length, features, step, TAPS, STARTED)
        c = _sum_of_taps(offset, w0, w1, w2, w3, n2, n1, x0, x1, TAPS)
        g2 = _slope(dy, c, t + 2, h, length, features, dy_step)
        n3 = _seen(x, before, t + 3, h, length, features, step, TAPS, STARTED)
        c = _sum_of_taps(offset, w0, w1, w2, w3, n3, n2, n1, x0, TAPS)
        g3 = _slope(dy, c, t + 3, h, length, features, dy_step)
        slope = _sum_of_taps(0.0, w0, w1, w2, w3, g0, g1, g2, g3, TAPS)
        in_h = (h < features)[None, :]
        at = dx + t.to(tl.int64)[:, None] * features + h[None, :]
        inside = ((t >= 0) & (t < length))[:, None] & in_h
        tl.store(at, slope.to(dx.dtype.element_ty), mask=inside)
        if STARTED:
            at = d_before + (t + TAPS - 1)[:, None] * features + h[None, :]
            earlier = ((t < 0) & (t > -TAPS))[:, None] & in_h
            tl.store(at, slope.to(d_before.dtype.element_ty), mask=earlier)
    at = sums + program.to(tl.int64) * 5 * features + h
    tl.store(at, total_of(k0, 0), mask=h < features)
    tl.store(at + features, total_of(k1, 0), mask=h < features)
    tl.store(at + 2 * features, total_of(k2, 0), mask=h < features)
    tl.store(at + 3 * features, total_of(k3, 0), mask=h < features)
    tl.store(at + 4 * features, total_of(d_bias, 0), mask=h < features)


class ConvSilu(torch.autograd.Function):
    """`apply(portable, x, kernel, bias, before)`, as `backend.fused_conv_silu`.

    x may have fewer bits than the kernel, in whose dtype the result is. It is read where it lies.
    """

    @staticmethod
    def forward(ctx, portable, *tensors):
        ctx.portable = portable
        ctx.save_for_backward(*tensors)
        x, kernel, bias, before = _readable(*tensors)
        y = torch.empty(x.shape, dtype=kernel.dtype, device=x.device)
        plan = _Plan(x, kernel, bias, before, STEPS, first=0)
        plan.launch(outputs, x, y, sizes=())
        return y

    @staticmethod
    def backward(ctx, upstream):
        tensors = ctx.saved_tensors
        if needs_autograd(upstream):
            return None, *by_autograd(ctx.portable, tensors, upstream)
        x, kernel, bias, before = _readable(*tensors)
        (upstream,) = _in_rows(upstream)
        plan = _Plan(x, kernel, bias, before, STEPS_BACK, first=0 if before is None else T)
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        d_before = None if before is None else torch.empty_like(before)
        sums = kernel.new_empty((plan.programs, 5, x.shape[2]), dtype=torch.float32)
        outs = upstream, dx, dx if before is None else d_before, sums
        plan.launch(slopes, x, *outs, sizes=upstream.stride()[:2])
        total = sums.sum(0).to(kernel.dtype)
        d_kernel = total[: len(kernel)].flip(0)
        return None, dx, d_kernel, None if bias is None else total[4], d_before


class _Plan:
    """Programs for tensors of one shape, which walk over `first` steps more than there are."""

    def __init__(self, x, kernel, bias, before, steps, first):
        batch, length, features = x.shape
        self._weights = kernel, kernel if bias is None else bias, x if before is None else before
        block = min(FEATURES, padded(features, 1))
        self.S = min(steps, -(-(length + first) // T) * T)
        self.G = -(-(length + first) // self.S)
        self.programs = batch * self.G
        self._grid = (self.programs * -(-features // block),)
        self._sizes = length, features, *x.stride()[:2]
        self._options = {"T": T, "BH": block, "TAPS": len(kernel), "num_warps": WARPS}
        self._options.update(BIASED=bias is not None, STARTED=before is not None)

    def launch(self, function, x, *others, sizes):
        arguments = x, *self._weights, *others, *self._sizes, *sizes, self.G, self.S
        with torch.cuda.device_of(x):
            function[self._grid](*arguments, **self._options)


def _readable(x, *others):
    return *_in_rows(x), *(None if t is None else t.contiguous() for t in others)


def _in_rows(*tensors):
    """Tensors whose features lie beside each other, as they are if they do."""
    return [t if t.stride(-1) == 1 else t.contiguous() for t in tensors]
