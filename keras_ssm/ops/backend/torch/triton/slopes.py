"""The walk of `triton_walk` the other way round, which gives all gradients of a bank."""

import triton
import triton.language as tl

from keras_ssm.ops.backend.torch.triton.walk import (
    CHANGING,
    folded,
    for_parts,
    halves,
    matrix,
    of_parts,
    place,
    plus_product,
    read,
    response,
    state_at,
    total_of,
    turned,
)


@triton.jit(do_not_specialize=CHANGING)
def slopes(
    u,
    dy,
    du,
    start,
    part,
    lags,
    F,
    E,
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
    EXACT: tl.constexpr,
):
    """The way back: du where INPUT, and of each program the sums over t that the gradients need.

    `part` `(programs, lanes, 4, NM)` gets the sums of u lam and u om, as far as these come from
    before the chunk and but for a factor a; `lags` `(programs, features, T, T)` the products of
    u and dy within a chunk.
    """
    HALF: tl.constexpr = u.dtype.element_ty == tl.bfloat16
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    fr, fr_lo = matrix(F + f * (2 * T * NM), j, n, NM)
    fi, fi_lo = matrix(F + f * (2 * T * NM) + T * NM, j, n, NM)
    ar = tl.load(A + f * (2 * NM) + n[None, None, :])
    ai = tl.load(A + f * (2 * NM) + NM + n[None, None, :])
    if INPUT:
        reads, reads_lo = matrix(E + f * (2 * NM * T), n, j, T)
        readi, readi_lo = matrix(E + f * (2 * NM * T) + NM * T, n, j, T)
    R, R_lo = response(K, f, j, T, PARTS)
    q = origin + (r % G)[:, None] * S + j[None, :]
    p = origin + (r % G)[:, None] * S + (T - 1 - j)[None, :] - lag
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = place(b, h, p, way, length, length, dy_row, LONG)
    at_u = place(b, h, q, way, length, length, u_row, LONG)
    to = place(b, h, q, way, length, length, du_row, LONG)
    in_range = (r < rows)[None, :, None]
    x0 = state_at(start, r, f, n, lanes, 4 * NM)
    xr = tl.load(x0, mask=in_range, other=0.0)
    xi = tl.load(x0 + NM, mask=in_range, other=0.0)
    wr = tl.load(x0 + 2 * NM, mask=in_range, other=0.0)
    wi = tl.load(x0 + 3 * NM, mask=in_range, other=0.0)
    pr = tl.full([BH * PARTS, M // 2, NM], 0.0, tl.float32)
    pi = tl.full([BH * PARTS, M // 2, NM], 0.0, tl.float32)
    sr = tl.full([BH * PARTS, M // 2, NM], 0.0, tl.float32)
    si = tl.full([BH * PARTS, M // 2, NM], 0.0, tl.float32)
    within = tl.full([BH * PARTS, T, T], 0.0, tl.float32)
    zero = tl.full([BH * PARTS, M, T], 0.0, tl.float32)
    nothing = tl.full([BH * PARTS, M, NM], 0.0, tl.float32)
    next_chunk = read(dy, at, p, length, inside)
    next_u = read(u, at_u, q, length, inside)
    # A sum takes the layout of the product in it, so numbers are moved before they are halved.
    level = 0.0 * plus_product(zero, for_parts(next_chunk, PARTS), R, R_lo, False, False)
    for _ in range(S // T):
        d = for_parts(next_chunk, PARTS) + level
        v = for_parts(next_u, PARTS) + level
        v_turned = tl.permute(for_parts(next_u, PARTS), (0, 2, 1))
        valid = ((q >= 0) & (q < length))[:, :, None] & inside
        p += T
        q += T
        at += way * T * dy_row
        at_u += way * T * u_row
        next_chunk = read(dy, at, p, length, inside)
        next_u = read(u, at_u, q, length, inside)
        if INPUT:
            out = plus_product(zero, d, R, R_lo, EXACT, HALF)
            out = plus_product(out, xr, reads, reads_lo, EXACT, False)
            out = plus_product(out, xi, readi, readi_lo, EXACT, False)
            result = of_parts(out, PARTS)
            if ADD:
                result += tl.load(du + to, mask=valid, other=0.0).to(tl.float32)
            tl.store(du + to, result.to(du.dtype.element_ty), mask=valid)
            to += way * T * du_row
        d_hi, d_lo = halves(d)
        within = plus_product(within, v_turned, d_hi, d_lo, EXACT and not HALF, HALF)
        gr = plus_product(nothing, v, fr, fr_lo, EXACT, HALF)
        gi = plus_product(nothing, v, fi, fi_lo, EXACT, HALF)
        weighed = v * (j[None, None, :] + 1).to(tl.float32)
        kr = plus_product(nothing, weighed, fr, fr_lo, EXACT, False)
        ki = plus_product(nothing, weighed, fi, fi_lo, EXACT, False)
        pr += folded(xr * gr - xi * gi)
        pi += folded(xr * gi + xi * gr)
        sr += folded(wr * gr - wi * gi + xr * kr - xi * ki)
        si += folded(wr * gi + wi * gr + xr * ki + xi * kr)
        weighed = d * j[None, None, :].to(tl.float32)
        mr, mi = turned(ar, ai, wr + T * xr, wi + T * xi)
        wr = plus_product(mr, weighed, fr, fr_lo, EXACT, False)
        wi = plus_product(mi, weighed, fi, fi_lo, EXACT, False)
        mr, mi = turned(ar, ai, xr, xi)
        xr = plus_product(mr, d, fr, fr_lo, EXACT, HALF)
        xi = plus_product(mi, d, fi, fi_lo, EXACT, HALF)
    lane = tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS)[:, None]
    program = tl.program_id(1).to(tl.int64) * lanes
    sums = part + (program + lane) * (4 * NM) + n[None, :]
    tl.store(sums, total_of(pr, 1))
    tl.store(sums + NM, total_of(pi, 1))
    tl.store(sums + 2 * NM, total_of(sr, 1))
    tl.store(sums + 3 * NM, total_of(si, 1))
    to_lags = lags + (program + f) // PARTS * (T * T) + j[None, :, None] * T + j[None, None, :]
    tl.store(to_lags, within, mask=f % PARTS == 0)
