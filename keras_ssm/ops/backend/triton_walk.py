"""A diagonal bank walked over a sequence that stays where it is: the three large kernels.

One program takes some features and 16 rows, which are segments of sequences side by side. It walks
them in chunks of T steps, with the states in registers, and a warp for each part of the modes of
a feature (a lane, below):

    y = x R + state O        R = Toeplitz(K)   O[n, i] = 2 g a^(i + 1)
    state' = a^T state + x F                   F[j, n] = a^j, for inputs in reversed order

Backwards the same walk goes the other way over the gradient of y. With lam[t] the sum over
s >= t of a^(s - t) dy[s] and om[t] that of (s - t) a^(s - t) dy[s], both states of this walk, the
gradients of g and log a need the sums over t of u lam and u om, and nothing that went forward.

A number x is held as bfloat16 twice, hi + lo, and a product is hi hi + hi lo + lo hi with sums
in float32: as accurate as float32 throughout, and the tensor cores do it.

Positions p are counted along the walk, whatever its way; what reaches beyond the sequence is zero.
"""

import os

import triton
import triton.language as tl

# Whether Triton made interpreted functions of the kernels below: it decides as they are defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

AS_FLOAT32 = tl.constexpr(INTERPRETED)  # the interpreter has no products of bfloat16

# Numbers of which the compiler shall not make a case of its own.
CHANGING = ["length", "G", "S", "rows", "origin", "way", "lag"]


@triton.jit
def _upper(x):
    """x rounded to bfloat16, as float32: cards convert single numbers slowly, and pairs fast."""
    return ((x.to(tl.int32, bitcast=True) + 0x8000) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _halves(x):
    upper = _upper(x)
    return upper.to(tl.bfloat16), (x - upper).to(tl.bfloat16)


@triton.jit
def _dot(a, b, total):
    if AS_FLOAT32:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    else:
        return tl.dot(a, b, total)


@triton.jit
def _plus_product(total, a, hi, lo, EXACT: tl.constexpr, HALF: tl.constexpr):
    """total + a (hi + lo). HALF: a is a bfloat16 number; EXACT: none of the halves is dropped."""
    if EXACT and not HALF:
        upper, lower = _halves(a)
        total = _dot(upper, hi, total)
        total = _dot(upper, lo, total)
        return _dot(lower, hi, total)
    else:
        upper = a.to(tl.bfloat16)
        total = _dot(upper, hi, total)
        if EXACT:
            total = _dot(upper, lo, total)
        return total


@triton.jit
def _matrix(at, row, column, stride):
    """Both halves of a matrix of each feature; `at` is where they begin, `(features, 1, 1)`."""
    return _halves(tl.load(at + row[None, :, None] * stride + column[None, None, :]))


@triton.jit
def _response(K, f, j, T: tl.constexpr, PARTS: tl.constexpr):
    """Both halves of R: entry k of a chunk in reversed order reaches entry i after i + k - T + 1."""
    lag = j[None, :, None] + j[None, None, :] - (T - 1)
    return _halves(tl.load(K + f // PARTS * T + lag, mask=(lag >= 0) & (f % PARTS == 0), other=0.0))


@triton.jit
def _steps(lengths, b, length, inside, BY_ROW: tl.constexpr):
    """The number of steps of each row."""
    steps = length
    if BY_ROW:
        steps = tl.load(lengths + b, mask=inside, other=0)[:, None]
    return steps


@triton.jit
def _at(b, h, p, way, length, steps, row, LONG: tl.constexpr):
    """Where position p of each row and feature is in a sequence, `(rows, T, features)`."""
    t = tl.where(way > 0, p, steps - 1 - p)
    if LONG:
        t = t.to(tl.int64)
    return (b[:, None] * length + t)[:, :, None] * row + h[None, None, :]


@triton.jit
def _read(x, at, p, steps, inside):
    valid = ((p >= 0) & (p < steps))[:, :, None]
    return tl.load(x + at, mask=valid & inside, other=0.0).to(tl.float32)


@triton.jit
def _turned(ar, ai, xr, xi):
    return ar * xr - ai * xi, ar * xi + ai * xr


@triton.jit
def _folded(x):
    """The upper half of the rows added to the lower one: a thread has both in its registers."""
    B: tl.constexpr = x.shape[0]
    M: tl.constexpr = x.shape[1]
    return tl.sum(tl.reshape(x, [B, 2, M // 2, x.shape[2]]), 1)


@triton.jit
def _for_parts(x, PARTS: tl.constexpr):
    """Numbers `(rows, T, features)` for each part of the modes, `(features * parts, rows, T)`."""
    x = tl.permute(x, (2, 0, 1))
    if PARTS == 1:
        return x
    else:
        M: tl.constexpr = x.shape[1]
        T: tl.constexpr = x.shape[2]
        x = tl.broadcast_to(tl.expand_dims(x, 1), [x.shape[0], PARTS, M, T])
        return tl.reshape(x, [x.shape[0] * PARTS, M, T])


@triton.jit
def _of_parts(x, PARTS: tl.constexpr):
    """The sums over the parts of the modes, `(rows, T, features)`."""
    x = tl.permute(x, (1, 2, 0))
    if PARTS == 1:
        return x
    else:
        M: tl.constexpr = x.shape[0]
        T: tl.constexpr = x.shape[1]
        one, other = tl.split(tl.reshape(x, [M, T, x.shape[2] // 2, 2]))
        return _of_parts(tl.permute(one + other, (2, 0, 1)), PARTS // 2)


@triton.jit
def _state_at(states, r, f, n, lanes, size):
    return states + (r[None, :, None].to(tl.int64) * lanes + f) * size + n[None, None, :]


@triton.jit(do_not_specialize=CHANGING)
def ends(
    x,
    end,
    F,
    A,
    lengths,
    length,
    features,
    lanes,
    x_row,
    G,
    S,
    rows,
    origin,
    way,
    lag,
    T: tl.constexpr,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    BH: tl.constexpr,
    M: tl.constexpr,
    MOMENT: tl.constexpr,
    BY_ROW: tl.constexpr,
    LONG: tl.constexpr,
    STAGES: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The state that each segment adds, from zero; with MOMENT the second one as well."""
    HALF: tl.constexpr = x.dtype.element_ty == tl.bfloat16
    NS: tl.constexpr = 4 if MOMENT else 2
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    fr, fr_lo = _matrix(F + f * (2 * T * NM), j, n, NM)
    fi, fi_lo = _matrix(F + f * (2 * T * NM) + T * NM, j, n, NM)
    ar = tl.load(A + f * (2 * NM) + n[None, None, :])
    ai = tl.load(A + f * (2 * NM) + NM + n[None, None, :])
    steps = _steps(lengths, b, length, r < rows, BY_ROW)
    first = origin
    if BY_ROW:  # the last segment ends where the row does
        first = steps - G * S
    p = first + (r % G)[:, None] * S + (T - 1 - j)[None, :] - lag
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = _at(b, h, p, way, length, steps, x_row, LONG)
    xr = tl.zeros([BH * PARTS, M, NM], tl.float32)
    xi = tl.zeros([BH * PARTS, M, NM], tl.float32)
    wr = tl.zeros([BH * PARTS, M, NM], tl.float32)
    wi = tl.zeros([BH * PARTS, M, NM], tl.float32)
    for _ in tl.range(0, S // T, num_stages=STAGES):
        v = _for_parts(_read(x, at, p, steps, inside), PARTS)
        p += T
        at += way * T * x_row
        if MOMENT:
            weighed = v * j[None, None, :].to(tl.float32)
            mr, mi = _turned(ar, ai, wr + T * xr, wi + T * xi)
            wr = _plus_product(mr, weighed, fr, fr_lo, EXACT, False)
            wi = _plus_product(mi, weighed, fi, fi_lo, EXACT, False)
        mr, mi = _turned(ar, ai, xr, xi)
        xr = _plus_product(mr, v, fr, fr_lo, EXACT, HALF)
        xi = _plus_product(mi, v, fi, fi_lo, EXACT, HALF)
    to = _state_at(end, r, f, n, lanes, NS * NM)
    kept = (r < rows)[None, :, None]
    tl.store(to, xr, mask=kept)
    tl.store(to + NM, xi, mask=kept)
    if MOMENT:
        tl.store(to + 2 * NM, wr, mask=kept)
        tl.store(to + 3 * NM, wi, mask=kept)


@triton.jit(do_not_specialize=CHANGING)
def outputs(
    x,
    y,
    start,
    F,
    O,
    K,
    A,
    lengths,
    length,
    features,
    lanes,
    x_row,
    y_row,
    G,
    S,
    rows,
    origin,
    way,
    lag,
    T: tl.constexpr,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    BH: tl.constexpr,
    M: tl.constexpr,
    ADD: tl.constexpr,
    BY_ROW: tl.constexpr,
    LONG: tl.constexpr,
    STAGES: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The outputs, `lag` steps later, of segments of known start; with ADD added to what is there."""
    HALF: tl.constexpr = x.dtype.element_ty == tl.bfloat16
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    fr, fr_lo = _matrix(F + f * (2 * T * NM), j, n, NM)
    fi, fi_lo = _matrix(F + f * (2 * T * NM) + T * NM, j, n, NM)
    reads, reads_lo = _matrix(O + f * (2 * NM * T), n, j, T)
    readi, readi_lo = _matrix(O + f * (2 * NM * T) + NM * T, n, j, T)
    R, R_lo = _response(K, f, j, T, PARTS)
    ar = tl.load(A + f * (2 * NM) + n[None, None, :])
    ai = tl.load(A + f * (2 * NM) + NM + n[None, None, :])
    steps = _steps(lengths, b, length, r < rows, BY_ROW)
    q = origin + (r % G)[:, None] * S + j[None, :] + lag
    p = origin + (r % G)[:, None] * S + (T - 1 - j)[None, :]
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = _at(b, h, p, way, length, steps, x_row, LONG)
    to = _at(b, h, q, way, length, steps, y_row, LONG)
    kept = (r < rows)[None, :, None]
    xr = tl.load(_state_at(start, r, f, n, lanes, 2 * NM), mask=kept, other=0.0)
    xi = tl.load(_state_at(start, r, f, n, lanes, 2 * NM) + NM, mask=kept, other=0.0)
    zero = tl.zeros([BH * PARTS, M, T], tl.float32)
    out = _plus_product(zero, _for_parts(_read(x, at, p, steps, inside), PARTS), R, R_lo, False, False)
    for _ in tl.range(0, S // T, num_stages=STAGES):
        # A sum with a product takes its layout: numbers are moved before they are halved.
        v = _for_parts(_read(x, at, p, steps, inside), PARTS) + out * 0.0
        p += T
        at += way * T * x_row
        out = _plus_product(zero, v, R, R_lo, EXACT, HALF)
        out = _plus_product(out, xr, reads, reads_lo, EXACT, False)
        out = _plus_product(out, xi, readi, readi_lo, EXACT, False)
        result = _of_parts(out, PARTS)
        valid = ((q >= 0) & (q < steps))[:, :, None] & inside
        if ADD:
            result += tl.load(y + to, mask=valid, other=0.0).to(tl.float32)
        tl.store(y + to, result.to(y.dtype.element_ty), mask=valid)
        q += T
        to += way * T * y_row
        mr, mi = _turned(ar, ai, xr, xi)
        xr = _plus_product(mr, v, fr, fr_lo, EXACT, HALF)
        xi = _plus_product(mi, v, fi, fi_lo, EXACT, HALF)


@triton.jit(do_not_specialize=CHANGING)
def slopes(
    u,
    dy,
    du,
    start,
    part,
    lags,
    F,
    O,
    K,
    A,
    length,
    features,
    lanes,
    u_row,
    dy_row,
    du_row,
    G,
    S,
    rows,
    origin,
    way,
    lag,
    T: tl.constexpr,
    NM: tl.constexpr,
    PARTS: tl.constexpr,
    BH: tl.constexpr,
    M: tl.constexpr,
    ADD: tl.constexpr,
    INPUT: tl.constexpr,
    LONG: tl.constexpr,
    STAGES: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The way back: du where INPUT, and of each program the sums over t that the gradients need.

    `part` `(programs, lanes, 4, NM)` gets the sums of u lam and u om from lag a chunk's start on, but
    for a factor a, `lags` `(programs, features, T, T)` the products of u and dy within a chunk.
    """
    HALF: tl.constexpr = u.dtype.element_ty == tl.bfloat16
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    fr, fr_lo = _matrix(F + f * (2 * T * NM), j, n, NM)
    fi, fi_lo = _matrix(F + f * (2 * T * NM) + T * NM, j, n, NM)
    ar = tl.load(A + f * (2 * NM) + n[None, None, :])
    ai = tl.load(A + f * (2 * NM) + NM + n[None, None, :])
    if INPUT:
        reads, reads_lo = _matrix(O + f * (2 * NM * T), n, j, T)
        readi, readi_lo = _matrix(O + f * (2 * NM * T) + NM * T, n, j, T)
    R, R_lo = _response(K, f, j, T, PARTS)
    q = origin + (r % G)[:, None] * S + j[None, :]
    p = origin + (r % G)[:, None] * S + (T - 1 - j)[None, :] - lag
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = _at(b, h, p, way, length, length, dy_row, LONG)
    at_u = _at(b, h, q, way, length, length, u_row, LONG)
    to = _at(b, h, q, way, length, length, du_row, LONG)
    kept = (r < rows)[None, :, None]
    x0 = _state_at(start, r, f, n, lanes, 4 * NM)
    xr = tl.load(x0, mask=kept, other=0.0)
    xi = tl.load(x0 + NM, mask=kept, other=0.0)
    wr = tl.load(x0 + 2 * NM, mask=kept, other=0.0)
    wi = tl.load(x0 + 3 * NM, mask=kept, other=0.0)
    pr = tl.zeros([BH * PARTS, M // 2, NM], tl.float32)
    pi = tl.zeros([BH * PARTS, M // 2, NM], tl.float32)
    sr = tl.zeros([BH * PARTS, M // 2, NM], tl.float32)
    si = tl.zeros([BH * PARTS, M // 2, NM], tl.float32)
    within = tl.zeros([BH * PARTS, T, T], tl.float32)
    zero = tl.zeros([BH * PARTS, M, T], tl.float32)
    nothing = tl.zeros([BH * PARTS, M, NM], tl.float32)
    first = _read(dy, at, p, length, inside)
    out = _plus_product(zero, _for_parts(first, PARTS), R, R_lo, False, False)
    for _ in tl.range(0, S // T, num_stages=STAGES):
        coming = _read(dy, at, p, length, inside)
        coming_u = _read(u, at_u, q, length, inside)
        d = _for_parts(coming, PARTS) + out * 0.0
        v = _for_parts(coming_u, PARTS) + out * 0.0
        v_turned = tl.permute(_for_parts(coming_u, PARTS), (0, 2, 1))
        valid = ((q >= 0) & (q < length))[:, :, None] & inside
        p += T
        q += T
        at += way * T * dy_row
        at_u += way * T * u_row
        if INPUT:
            out = _plus_product(zero, d, R, R_lo, EXACT, HALF)
            out = _plus_product(out, xr, reads, reads_lo, EXACT, False)
            out = _plus_product(out, xi, readi, readi_lo, EXACT, False)
            result = _of_parts(out, PARTS)
            if ADD:
                result += tl.load(du + to, mask=valid, other=0.0).to(tl.float32)
            tl.store(du + to, result.to(du.dtype.element_ty), mask=valid)
            to += way * T * du_row
        d_hi, d_lo = _halves(d)
        within = _plus_product(within, v_turned, d_hi, d_lo, EXACT and not HALF, HALF)
        gr = _plus_product(nothing, v, fr, fr_lo, EXACT, HALF)
        gi = _plus_product(nothing, v, fi, fi_lo, EXACT, HALF)
        weighed = v * (j[None, None, :] + 1).to(tl.float32)
        kr = _plus_product(nothing, weighed, fr, fr_lo, EXACT, False)
        ki = _plus_product(nothing, weighed, fi, fi_lo, EXACT, False)
        pr += _folded(xr * gr - xi * gi)
        pi += _folded(xr * gi + xi * gr)
        sr += _folded(wr * gr - wi * gi + xr * kr - xi * ki)
        si += _folded(wr * gi + wi * gr + xr * ki + xi * kr)
        weighed = d * j[None, None, :].to(tl.float32)
        mr, mi = _turned(ar, ai, wr + T * xr, wi + T * xi)
        wr = _plus_product(mr, weighed, fr, fr_lo, EXACT, False)
        wi = _plus_product(mi, weighed, fi, fi_lo, EXACT, False)
        mr, mi = _turned(ar, ai, xr, xi)
        xr = _plus_product(mr, d, fr, fr_lo, EXACT, HALF)
        xi = _plus_product(mi, d, fi, fi_lo, EXACT, HALF)
    lane = tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS)[:, None]
    program = tl.program_id(1).to(tl.int64) * lanes
    sums = part + (program + lane) * (4 * NM) + n[None, :]
    tl.store(sums, tl.sum(pr, 1))
    tl.store(sums + NM, tl.sum(pi, 1))
    tl.store(sums + 2 * NM, tl.sum(sr, 1))
    tl.store(sums + 3 * NM, tl.sum(si, 1))
    to_lags = lags + (program + f) // PARTS * (T * T) + j[None, :, None] * T + j[None, None, :]
    tl.store(to_lags, within, mask=f % PARTS == 0)
