"""Gates as Triton kernels: y f(z), for whose gradient y and z are kept, read where they lie."""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd

# Rows and features of a program.
ROWS, FEATURES, WARPS = 8, 256, 4


@triton.jit
def _place(rows, features, R: tl.constexpr, BH: tl.constexpr):
    """Rows and features of a program, and which of them there are."""
    blocks = (features + BH - 1) // BH
    r = tl.program_id(0).to(tl.int64) // blocks * R + tl.arange(0, R)
    h = tl.program_id(0) % blocks * BH + tl.arange(0, BH)
    return r[:, None], h[None, :], (r < rows)[:, None] & (h < features)[None, :]


@triton.jit
def _function(z, KIND: tl.constexpr):
    """f(z) and its slope."""
    share = 1.0 / (1.0 + tl.exp(-z))
    if KIND == "silu":
        value = z * share
        slope = share * (1.0 + z * (1.0 - share))
    else:
        value = share
        slope = share * (1.0 - share)
    return value, slope


@triton.jit(do_not_specialize=["rows"])
def outputs(
    y,
    z,
    out,
    rows,
    features,
    y_step,
    z_step,
    R: tl.constexpr,
    BH: tl.constexpr,
    KIND: tl.constexpr,
):
    r, h, inside = _place(rows, features, R, BH)
    value, _ = _function(tl.load(z + r * z_step + h, mask=inside, other=0.0).to(tl.float32), KIND)
    value *= tl.load(y + r * y_step + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + r * features + h, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def slopes(
    y,
    z,
    upstream,
    dy,
    dz,
    rows,
    features,
    y_step,
    z_step,
    upstream_step,
    dy_step,
    dz_step,
    R: tl.constexpr,
    BH: tl.constexpr,
    KIND: tl.constexpr,
):
    r, h, inside = _place(rows, features, R, BH)
    through = tl.load(upstream + r * upstream_step + h, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(z + r * z_step + h, mask=inside, other=0.0).to(tl.float32)
    value, slope = _function(gate, KIND)
    of_y = through * value
    tl.store(dy + r * dy_step + h, of_y.to(dy.dtype.element_ty), mask=inside)
    of_z = through * slope * tl.load(y + r * y_step + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(dz + r * dz_step + h, of_z.to(dz.dtype.element_ty), mask=inside)


class Glu(torch.autograd.Function):
    """`apply(plain, z)`: the first half of the last axis times the sigmoid of the second.

    `plain` is the same function, for gradients of gradients.
    """

    @staticmethod
    def forward(ctx, plain, z):
        ctx.plain = plain
        ctx.save_for_backward(z)
        return _outputs(*z.chunk(2, -1), "sigmoid")

    @staticmethod
    def backward(ctx, upstream):
        (z,) = ctx.saved_tensors
        if needs_autograd(upstream):
            return None, *by_autograd(ctx.plain, (z,), upstream)
        dz = torch.empty(z.shape, dtype=z.dtype, device=z.device)
        _slopes(*z.chunk(2, -1), upstream, *dz.chunk(2, -1), "sigmoid")
        return None, dz


class Gated(torch.autograd.Function):
    """`apply(plain, kind, y, z)`: y f(z) in the dtype of y, with f `"silu"` or `"sigmoid"`.

    `plain` is a function of y and z with the same result, for gradients of gradients.
    """

    @staticmethod
    def forward(ctx, plain, kind, y, z):
        ctx.settings = plain, kind
        ctx.save_for_backward(y, z)
        return _outputs(y, z, kind)

    @staticmethod
    def backward(ctx, upstream):
        plain, kind = ctx.settings
        y, z = ctx.saved_tensors
        if needs_autograd(upstream):
            return None, None, *by_autograd(plain, (y, z), upstream)
        dy, dz = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (y, z))
        _slopes(y, z, upstream, dy, dz, kind)
        return None, None, dy, dz


def _outputs(y, z, kind):
    out = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    (y, y_step), (z, z_step) = in_rows(y), in_rows(z)
    _launch(outputs, (y, z, out), (y_step, z_step), kind)
    return out


def _slopes(y, z, upstream, dy, dz, kind):
    """Writes the gradients of y and z to dy and dz."""
    tensors, steps = zip(*map(in_rows, (y, z, upstream, dy, dz)), strict=True)
    _launch(slopes, tensors, steps, kind)


def _launch(kernel, tensors, steps, kind):
    like = tensors[0]
    features = like.shape[-1]
    rows, block = like.numel() // features, min(FEATURES, padded(features, 1))
    options = {"R": ROWS, "BH": block, "KIND": kind, "num_warps": WARPS}
    grid = (-(-rows // ROWS) * -(-features // block),)
    with torch.cuda.device_of(like):
        kernel[grid](*tensors, rows, features, *steps, **options)


def in_rows(x):
    """x and the step from row to row, with a copy if there is no such step."""
    step, rows = None, 1
    for size, stride in zip(reversed(x.shape[:-1]), reversed(x.stride()[:-1]), strict=True):
        step = stride if step is None and size > 1 else step
        if size > 1 and stride != step * rows:
            step = None
            break
        rows *= size
    if x.stride(-1) != 1 or (step is None and rows > 1):
        x = x.contiguous()
        step = x.shape[-1]
    return x, x.shape[-1] if step is None else step
