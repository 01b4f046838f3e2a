"""The small kernels around `triton_walk`: its matrices, the states before segments, the gradients.

Numbers of a bank lie in `(..., features, modes)`, real and imaginary parts apart. Those of the
walk are filled up with zeros and lie in lanes, PARTS of them with NM modes for each feature.
"""

import triton
import triton.language as tl

from keras_ssm.ops.backend.torch.triton.walk import total_of

MATRICES = ["modes", "first"]
STARTS = ["modes", "batch", "size", "G", "S"]
GATHER = ["modes", "programs"]


@triton.jit
def product(ar, ai, br, bi):
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _power(re, im, exponent):
    """e^(exponent (re + i im)); the angle is not rounded before its sine is taken."""
    angle = exponent * im
    rest = tl.fma(exponent, im, -angle)
    size = tl.exp(exponent * re)
    cos = tl.cos(angle)
    sin = tl.sin(angle)
    return size * (cos - rest * sin), size * (sin + rest * cos)


@triton.jit
def pair_at(re, im, at, mask):
    return tl.load(re + at, mask=mask, other=0.0), tl.load(im + at, mask=mask, other=0.0)


@triton.jit(do_not_specialize=MATRICES)
def matrices(
    la_re,
    la_im,
    C_re,
    C_im,
    dB_re,
    dB_im,
    D,
    F,
    E,
    K,
    A,
    features,
    modes,
    first,
    T: tl.constexpr,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    DRIVEN: tl.constexpr,
    NORMAL: tl.constexpr,
    DIRECT: tl.constexpr,
):
    """Matrices of a plane: DRIVEN if there is a dB, which NORMAL makes a part of C, DIRECT if a D.

    E[i] = 2 C a^(i + first).
    """
    h = tl.program_id(0)
    n = tl.arange(0, PARTS * NM)
    j = tl.arange(0, T)
    lane = h * PARTS + n // NM
    k = n % NM
    used = (n < modes) & (h < features)
    row = h * modes + n
    re, im = pair_at(la_re, la_im, row, used)
    cr, ci = pair_at(C_re, C_im, row, used)
    one = tl.where(used, 1.0, 0.0)
    br = one
    bi = 0.0 * one
    if DRIVEN:
        br, bi = pair_at(dB_re, dB_im, row, used)
    gr, gi = product(cr, ci, br, bi)
    if NORMAL:
        cr = gr
        ci = gi
        br = one
        bi = 0.0 * one
    pr, pi = _power(re[None, :], im[None, :], j[:, None].to(tl.float32))
    fr, fi = product(pr, pi, br[None, :], bi[None, :])
    at = F + lane[None, :] * (2 * T * NM) + j[:, None] * NM + k[None, :]
    tl.store(at, fr)
    tl.store(at + T * NM, fi)
    lags = 2.0 * total_of(pr * gr[None, :] - pi * gi[None, :], 1)
    if DIRECT:
        lags += tl.where(j == 0, tl.load(D + h, mask=h < features, other=0.0), 0.0)
    tl.store(K + h * T + j, lags)
    tr, ti = _power(re[None, :], im[None, :], (j[:, None] + first).to(tl.float32))
    tr, ti = product(tr, ti, cr[None, :], ci[None, :])
    at = E + lane[None, :] * (2 * T * NM) + k[None, :] * T + j[:, None]
    tl.store(at, 2.0 * tr)
    tl.store(at + T * NM, -2.0 * ti)
    ar, ai = _power(re, im, T * one)
    tl.store(A + lane * (2 * NM) + k, tl.where(used, ar, 0.0))
    tl.store(A + lane * (2 * NM) + NM + k, tl.where(used, ai, 0.0))


@triton.jit(do_not_specialize=STARTS)
def starts(
    la_re,
    la_im,
    end,
    initial,
    start,
    last,
    features,
    lanes,
    modes,
    batch,
    size,
    G,
    S,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    MOMENT: tl.constexpr,
    ENDS: tl.constexpr,
    INITIAL: tl.constexpr,
    LAST: tl.constexpr,
):
    """States before each segment `(batch G, lanes, 2 or 4, NM)`, with LAST also after the last one.

    ENDS: what each segment adds; INITIAL: the state before the first, `(batch, features, 2 size)`.
    """
    NS: tl.constexpr = 4 if MOMENT else 2
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    lane = ((i // NM) % lanes).to(tl.int32)
    b = i // (NM * lanes)
    h = lane // PARTS
    n = (i % NM).to(tl.int32)
    m = lane % PARTS * NM + n
    inside = b < batch
    used = inside & (m < modes) & (h < features)
    re, im = pair_at(la_re, la_im, h * modes + m, used)
    over = S + 0.0 * re
    ar, ai = _power(re, im, over)
    xr = tl.full([BLOCK], 0.0, tl.float32)
    xi = tl.full([BLOCK], 0.0, tl.float32)
    wr = tl.full([BLOCK], 0.0, tl.float32)
    wi = tl.full([BLOCK], 0.0, tl.float32)
    if INITIAL:
        initial_at = initial + (b * features + h) * (2 * size) + m
        xr = tl.load(initial_at, mask=used, other=0.0)
        xi = tl.load(initial_at + size, mask=used, other=0.0)
    for g in range(G):
        at = ((b * G + g) * lanes + lane) * (NS * NM) + n
        tl.store(start + at, xr, mask=inside)
        tl.store(start + at + NM, xi, mask=inside)
        if MOMENT:
            tl.store(start + at + 2 * NM, wr, mask=inside)
            tl.store(start + at + 3 * NM, wi, mask=inside)
            wr, wi = product(ar, ai, wr + over * xr, wi + over * xi)
        xr, xi = product(ar, ai, xr, xi)
        if ENDS:
            needed = inside & (LAST | (g + 1 < G))
            xr += tl.load(end + at, mask=needed, other=0.0)
            xi += tl.load(end + at + NM, mask=needed, other=0.0)
            if MOMENT:
                wr += tl.load(end + at + 2 * NM, mask=needed, other=0.0)
                wi += tl.load(end + at + 3 * NM, mask=needed, other=0.0)
    if LAST:
        final = last + (b * lanes + lane) * (NS * NM) + n
        tl.store(final, xr, mask=inside)
        tl.store(final + NM, xi, mask=inside)
        if MOMENT:
            tl.store(final + 2 * NM, wr, mask=inside)
            tl.store(final + 3 * NM, wi, mask=inside)


@triton.jit(do_not_specialize=GATHER)
def gather(
    part,
    lags,
    la_re,
    la_im,
    C_re,
    C_im,
    dB_re,
    dB_im,
    d_la_re,
    d_la_im,
    d_C_re,
    d_C_im,
    d_dB_re,
    d_dB_im,
    d_D,
    lanes,
    modes,
    programs,
    T: tl.constexpr,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    DRIVEN: tl.constexpr,
    DIRECT: tl.constexpr,
    ADD: tl.constexpr,
):
    """The gradients of a plane from what its programs summed; with ADD of log a and dB added up.

    With P the sum over t of u lam and W that of u om: of g = C dB it is 2 conj(P), of log a
    2 conj(g W), as pairs of real numbers.
    """
    h = tl.program_id(0)
    n = tl.arange(0, PARTS * NM)
    k = tl.arange(0, T * T)
    lags_of = tl.arange(0, T)
    pr = tl.full([PARTS * NM], 0.0, tl.float32)
    pi = tl.full([PARTS * NM], 0.0, tl.float32)
    sr = tl.full([PARTS * NM], 0.0, tl.float32)
    si = tl.full([PARTS * NM], 0.0, tl.float32)
    products = tl.full([T * T], 0.0, tl.float32)
    for program in range(programs):
        at = part + (program * lanes + h * PARTS + n // NM) * (4 * NM) + n % NM
        pr += tl.load(at)
        pi += tl.load(at + NM)
        sr += tl.load(at + 2 * NM)
        si += tl.load(at + 3 * NM)
        products += tl.load(lags + (program * (lanes // PARTS) + h) * (T * T) + k)
    # Entry (i, j) of the products has lag i + j - T + 1; negative lags have no meaning.
    lag = k // T + k % T - (T - 1)
    r = total_of(tl.where(lag[:, None] == lags_of[None, :], products[:, None], 0.0), 0)
    used = n < modes
    row = h * modes + n
    re, im = pair_at(la_re, la_im, row, used)
    steps = lags_of[:, None].to(tl.float32)
    tr, ti = _power(re[None, :], im[None, :], steps)
    ar, ai = _power(re, im, 1.0 + 0.0 * re)
    pr, pi = product(ar, ai, pr, pi)
    pr += total_of(r[:, None] * tr, 0)
    pi += total_of(r[:, None] * ti, 0)
    sr, si = product(ar, ai, sr, si)
    sr += total_of(r[:, None] * (steps * tr), 0)
    si += total_of(r[:, None] * (steps * ti), 0)
    cr, ci = pair_at(C_re, C_im, row, used)
    gr = cr
    gi = ci
    vr = pr
    vi = pi
    if DRIVEN:
        br, bi = pair_at(dB_re, dB_im, row, used)
        gr, gi = product(cr, ci, br, bi)
        vr, vi = product(br, bi, pr, pi)
        er, ei = product(cr, ci, pr, pi)
        er = 2.0 * er
        ei = -2.0 * ei
        if ADD:
            er += tl.load(d_dB_re + row, mask=used, other=0.0)
            ei += tl.load(d_dB_im + row, mask=used, other=0.0)
        tl.store(d_dB_re + row, er, mask=used)
        tl.store(d_dB_im + row, ei, mask=used)
    tl.store(d_C_re + row, 2.0 * vr, mask=used)
    tl.store(d_C_im + row, -2.0 * vi, mask=used)
    wr, wi = product(gr, gi, sr, si)
    wr = 2.0 * wr
    wi = -2.0 * wi
    if ADD:
        wr += tl.load(d_la_re + row, mask=used, other=0.0)
        wi += tl.load(d_la_im + row, mask=used, other=0.0)
    tl.store(d_la_re + row, wr, mask=used)
    tl.store(d_la_im + row, wi, mask=used)
    if DIRECT:
        tl.store(d_D + h, total_of(tl.where(lags_of == 0, r, 0.0), 0))
