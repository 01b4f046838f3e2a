"""The zero-order hold of diagonal systems as one Triton kernel, and its gradient as another.

Written out in tensors they are a hundred kernels on small arrays, which take the host longer to
start than the sequence takes the card.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton.parts import pair_at, product
from keras_ssm.ops.backend.torch.triton.walk import total_of


@triton.jit
def _expm1(re, im):
    """e^z and e^z - 1, without cancellation near 0."""
    size = tl.exp(re)
    sine = tl.sin(im)
    half = tl.sin(0.5 * im)
    # By the logarithm of the rounded e^x, whose error cancels.
    safe = tl.where(size == 1.0, 2.0, tl.where(size > 0.0, size, 1.5))
    small = tl.where(size == 1.0, re, (safe - 1.0) * re / tl.log(safe))
    less = tl.where(tl.abs(re) < 0.5, small, size - 1.0)
    return size * tl.cos(im), size * sine, less - 2.0 * size * half * half, size * sine


@triton.jit
def _over(ar, ai, br, bi):
    norm = br * br + bi * bi
    return (ar * br + ai * bi) / norm, (ai * br - ar * bi) / norm


@triton.jit
def hold(A_re, A_im, B_re, B_im, dt, z_re, z_im, dB_re, dB_im, modes, wide, N: tl.constexpr):
    """z = dt A and dB = B (e^z - 1) / A; `wide` is 1 where each mode has a dt of its own."""
    h = tl.program_id(0)
    n = tl.arange(0, N)
    used = n < modes
    at = h * modes + n
    ar = tl.load(A_re + at, mask=used, other=1.0)
    ai = tl.load(A_im + at, mask=used, other=0.0)
    br, bi = pair_at(B_re, B_im, at, used)
    step = tl.load(dt + tl.where(wide == 1, at, h), mask=used, other=0.0)
    zr = ar * step
    zi = ai * step
    _, _, er, ei = _expm1(zr, zi)
    wr, wi = _over(er, ei, ar, ai)
    dr, di = product(br, bi, wr, wi)
    tl.store(z_re + at, zr, mask=used)
    tl.store(z_im + at, zi, mask=used)
    tl.store(dB_re + at, dr, mask=used)
    tl.store(dB_im + at, di, mask=used)


@triton.jit
def slopes_of_hold(
    A_re,
    A_im,
    B_re,
    B_im,
    dt,
    z_re,
    z_im,
    dB_re,
    dB_im,
    d_A_re,
    d_A_im,
    d_B_re,
    d_B_im,
    d_dt,
    modes,
    wide,
    N: tl.constexpr,
):
    """The gradients, given those of z and dB: of f(x) it is the conjugate of f' times that of f."""
    h = tl.program_id(0)
    n = tl.arange(0, N)
    used = n < modes
    at = h * modes + n
    ar = tl.load(A_re + at, mask=used, other=1.0)
    ai = tl.load(A_im + at, mask=used, other=0.0)
    br, bi = pair_at(B_re, B_im, at, used)
    step = tl.load(dt + tl.where(wide == 1, at, h), mask=used, other=0.0)
    gr, gi = pair_at(dB_re, dB_im, at, used)
    zr, zi = pair_at(z_re, z_im, at, used)
    pr, pi, er, ei = _expm1(ar * step, ai * step)
    wr, wi = _over(er, ei, ar, ai)
    xr, xi = product(wr, -wi, gr, gi)
    tl.store(d_B_re + at, xr, mask=used)
    tl.store(d_B_im + at, xi, mask=used)
    gr, gi = product(br, -bi, gr, gi)  # of (e^z - 1) / A
    pr, pi = _over(pr, pi, ar, ai)
    xr, xi = product(pr, -pi, gr, gi)
    zr += xr
    zi += xi
    wr, wi = _over(wr, wi, ar, ai)
    xr, xi = product(-wr, wi, gr, gi)
    tl.store(d_A_re + at, xr + step * zr, mask=used)
    tl.store(d_A_im + at, xi + step * zi, mask=used)
    slope = tl.where(used, ar * zr + ai * zi, 0.0)
    if wide == 1:
        tl.store(d_dt + at, slope, mask=used)
    else:
        tl.store(d_dt + h, total_of(slope, 0))


class Hold(torch.autograd.Function):
    """`apply(portable, A_re, A_im, B_re, B_im, dt)`: log dA and dB, four tensors.

    The first four are `(features, modes)`, dt `(features, 1 or modes)`, and `portable` is a
    function of the five with the same results, for gradients of gradients.
    """

    @staticmethod
    def forward(ctx, portable, *tensors):
        ctx.portable = portable
        ctx.save_for_backward(*tensors)
        tensors = [t.contiguous() for t in tensors]
        outputs = [torch.empty_like(tensors[0]) for _ in range(4)]
        hold[(len(tensors[0]),)](*tensors, *outputs, **_sizes(tensors))
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *upstream):
        tensors = ctx.saved_tensors
        if needs_autograd(*upstream):
            return None, *by_autograd(ctx.portable, tensors, upstream)
        tensors, upstream = ([t.contiguous() for t in ts] for ts in (tensors, upstream))
        slopes = [torch.empty_like(t) for t in tensors]
        slopes_of_hold[(len(tensors[0]),)](*tensors, *upstream, *slopes, **_sizes(tensors))
        return None, *slopes


def _sizes(tensors):
    modes = tensors[0].shape[1]
    wide = int(tensors[4].shape[1] == modes)
    return {"modes": modes, "wide": wide, "N": padded(modes), "num_warps": 1}
