"""The bilinear rule of diagonal-plus-low-rank systems of rank one, and its gradient, as kernels.

With d = 1 - dt A / 2, q = P / d, w = conj(P) / d and s = Re sum w B,

    k = 1 / (1 + dt sum |P|^2 Re(1 / d))
    E = dt A / d - 2 dt q k (Re w, -Im w)        dB = dt B / d - dt^2 k s q

on states of real parts, then imaginary parts. Written out in tensors that is a hundred operations,
and twice as many back.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton.parts import pair_at, product
from keras_ssm.ops.backend.torch.triton.walk import total_of


@triton.jit
def _parts(ar, ai, pr, pi, br, bi, dt):
    """1 / d, q, w, k and s."""
    x = 1.0 - 0.5 * dt * ar
    y = 0.5 * dt * ai
    norm = x * x + y * y
    ir = x / norm
    ii = y / norm
    qr, qi = product(pr, pi, ir, ii)
    wr, wi = product(pr, -pi, ir, ii)
    k = 1.0 / (1.0 + dt * total_of((pr * pr + pi * pi) * ir, 0))
    return ir, ii, qr, qi, wr, wi, k, total_of(wr * br - wi * bi, 0)


@triton.jit
def bilinear(A_re, A_im, P_re, P_im, B_re, B_im, dt, E, dB, modes, N: tl.constexpr):
    """E `(features, 2 modes, 2 modes)` and dB `(features, 2 modes)`."""
    h = tl.program_id(0)
    n = tl.arange(0, N)
    used = n < modes
    at = h * modes + n
    ar, ai = pair_at(A_re, A_im, at, used)
    pr, pi = pair_at(P_re, P_im, at, used)
    br, bi = pair_at(B_re, B_im, at, used)
    step = tl.load(dt + h)
    ir, ii, qr, qi, wr, wi, k, s = _parts(ar, ai, pr, pi, br, bi, step)
    er, ei = product(ar, ai, step * ir, step * ii)
    both = used[:, None] & used[None, :]
    place = E + (h.to(tl.int64) * 2 * modes + n[:, None]) * (2 * modes) + n[None, :]
    below = 2 * modes * modes
    same = n[:, None] == n[None, :]
    cr = (2.0 * step * k * qr)[:, None]
    ci = (2.0 * step * k * qi)[:, None]
    tl.store(place, tl.where(same, er[:, None], 0.0) - cr * wr[None, :], mask=both)
    tl.store(place + modes, tl.where(same, -ei[:, None], 0.0) + cr * wi[None, :], mask=both)
    tl.store(place + below, tl.where(same, ei[:, None], 0.0) - ci * wr[None, :], mask=both)
    tl.store(place + below + modes, tl.where(same, er[:, None], 0.0) + ci * wi[None, :], mask=both)
    tr, ti = product(br, bi, ir, ii)
    at = dB + h * (2 * modes) + n
    tl.store(at, step * tr - step * step * k * s * qr, mask=used)
    tl.store(at + modes, step * ti - step * step * k * s * qi, mask=used)


@triton.jit
def slopes_of_bilinear(
    A_re,
    A_im,
    P_re,
    P_im,
    B_re,
    B_im,
    dt,
    d_E,
    d_dB,
    d_A_re,
    d_A_im,
    d_P_re,
    d_P_im,
    d_B_re,
    d_B_im,
    d_dt,
    modes,
    N: tl.constexpr,
):
    """The gradients, given those of E and dB; g_x is that of x, as real and imaginary part."""
    h = tl.program_id(0)
    n = tl.arange(0, N)
    used = n < modes
    at = h * modes + n
    ar, ai = pair_at(A_re, A_im, at, used)
    pr, pi = pair_at(P_re, P_im, at, used)
    br, bi = pair_at(B_re, B_im, at, used)
    step = tl.load(dt + h)
    ir, ii, qr, qi, wr, wi, k, s = _parts(ar, ai, pr, pi, br, bi, step)
    both = used[:, None] & used[None, :]
    place = d_E + (h.to(tl.int64) * 2 * modes + n[:, None]) * (2 * modes) + n[None, :]
    below = 2 * modes * modes
    rr = tl.load(place, mask=both, other=0.0)
    ri = tl.load(place + modes, mask=both, other=0.0)
    ir_ = tl.load(place + below, mask=both, other=0.0)
    ii_ = tl.load(place + below + modes, mask=both, other=0.0)
    same = n[:, None] == n[None, :]
    # dt A / d, on the diagonal
    er = total_of(tl.where(same, rr + ii_, 0.0), 1)
    ei = total_of(tl.where(same, ir_ - ri, 0.0), 1)
    # the columns 2 dt k q and the rows (Re w, -Im w)
    gcr = total_of(ri * wi[None, :] - rr * wr[None, :], 1)
    gci = total_of(ii_ * wi[None, :] - ir_ * wr[None, :], 1)
    c = 2.0 * step * k
    gwr = -c * total_of(qr[:, None] * rr + qi[:, None] * ir_, 0)
    gwi = c * total_of(qr[:, None] * ri + qi[:, None] * ii_, 0)
    gqr = c * gcr
    gqi = c * gci
    along = total_of(qr * gcr + qi * gci, 0)
    g_step = 2.0 * k * along
    g_k = 2.0 * step * along
    # dB = dt t - dt^2 k s q, t = B / d
    at_dB = d_dB + h * (2 * modes) + n
    gr = tl.load(at_dB, mask=used, other=0.0)
    gi = tl.load(at_dB + modes, mask=used, other=0.0)
    tr, ti = product(br, bi, ir, ii)
    v = total_of(gr * qr + gi * qi, 0)
    g_step += total_of(gr * tr + gi * ti, 0) - 2.0 * step * k * s * v
    g_k -= step * step * s * v
    g_s = -step * step * k * v
    gqr -= step * step * k * s * gr
    gqi -= step * step * k * s * gi
    gwr += g_s * br
    gwi -= g_s * bi
    gbr, gbi = product(step * gr, step * gi, ir, -ii)
    tl.store(d_B_re + at, gbr + g_s * wr, mask=used)
    tl.store(d_B_im + at, gbi - g_s * wi, mask=used)
    gir, gii = product(step * gr, step * gi, br, -bi)
    # k = 1 / (1 + dt G), G = sum |P|^2 Re(1 / d)
    size = pr * pr + pi * pi
    G = total_of(size * ir, 0)
    g_G = -k * k * g_k
    g_step += G * g_G
    g_G = step * g_G
    gir += g_G * size
    gpr = 2.0 * g_G * ir * pr
    gpi = 2.0 * g_G * ir * pi
    # q = P / d and w = conj(P) / d
    xr, xi = product(gqr, gqi, ir, -ii)
    gpr += xr
    gpi += xi
    xr, xi = product(gqr, gqi, pr, -pi)
    gir += xr
    gii += xi
    xr, xi = product(gwr, gwi, ir, -ii)
    gpr += xr
    gpi -= xi
    xr, xi = product(gwr, gwi, pr, pi)
    gir += xr
    gii += xi
    tl.store(d_P_re + at, gpr, mask=used)
    tl.store(d_P_im + at, gpi, mask=used)
    # dt A / d
    gar, gai = product(step * er, step * ei, ir, -ii)
    xr, xi = product(ar, ai, ir, ii)
    g_step += total_of(er * xr + ei * xi, 0)
    xr, xi = product(step * er, step * ei, ar, -ai)
    gir += xr
    gii += xi
    # d = 1 - dt A / 2, and 1 / d
    sr, si = product(ir, ii, ir, ii)
    gdr, gdi = product(-sr, si, gir, gii)
    tl.store(d_A_re + at, gar - 0.5 * step * gdr, mask=used)
    tl.store(d_A_im + at, gai - 0.5 * step * gdi, mask=used)
    tl.store(d_dt + h, g_step - 0.5 * total_of(gdr * ar + gdi * ai, 0))


class Bilinear(torch.autograd.Function):
    """`apply(portable, A_re, A_im, P_re, P_im, B_re, B_im, dt)`: E and dB.

    The first six are `(features, modes)`, dt `(features, 1)`, and `portable` is a function of the
    seven with the same results, for gradients of gradients.
    """

    @staticmethod
    def forward(ctx, portable, *tensors):
        ctx.portable = portable
        ctx.save_for_backward(*tensors)
        tensors = [t.contiguous() for t in tensors]
        features, modes = tensors[0].shape
        E = tensors[0].new_empty((features, 2 * modes, 2 * modes))
        dB = tensors[0].new_empty((features, 2 * modes))
        _launch(bilinear, *tensors, E, dB)
        return E, dB

    @staticmethod
    def backward(ctx, *upstream):
        tensors = ctx.saved_tensors
        if needs_autograd(*upstream):
            return None, *by_autograd(ctx.portable, tensors, upstream)
        tensors, upstream = ([t.contiguous() for t in ts] for ts in (tensors, upstream))
        slopes = [torch.empty_like(t) for t in tensors]
        _launch(slopes_of_bilinear, *tensors, *upstream, *slopes)
        return None, *slopes


def _launch(kernel, *tensors):
    features, modes = tensors[0].shape
    with torch.cuda.device_of(tensors[0]):
        kernel[(features,)](*tensors, modes, N=padded(modes), num_warps=4)
