"""A diagonal bank walked over a sequence that stays where it is: the three large kernels.

One program takes some features and 16 rows, which are segments of sequences side by side. It walks
them in chunks of T steps, with the states in registers, and a warp for each part of the modes of
a feature (a lane, below):

    y = x R + state E        R = Toeplitz(K)   E[n, i] = 2 g a^(i + 1)
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

# Whether the kernels below run in Triton's interpreter: this is decided when they are defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

AS_FLOAT32 = tl.constexpr(INTERPRETED)  # the interpreter has no products of bfloat16

# Arguments for whose values the compiler must not specialise.
CHANGING = ["length", "G", "S", "rows", "origin", "way", "lag"]


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def total_of(x, axis: tl.constexpr):
    """`tl.sum`, which is not interpreted where Triton was imported before it was asked to."""
    return tl.reduce(x, axis, add)


@triton.jit
def upper_half(x):
    """x rounded to bfloat16, as float32: cards convert single numbers slowly, and pairs fast."""
    return ((x.to(tl.int32, bitcast=True) + 0x8000) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def halves(x):
    upper = upper_half(x)
    return upper.to(tl.bfloat16), (x - upper).to(tl.bfloat16)


@triton.jit
def dot(a, b, total):
    if AS_FLOAT32:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    else:
        return tl.dot(a, b, total)


@triton.jit
def plus_product(total, a, hi, lo, EXACT: tl.constexpr, HALF: tl.constexpr):
    """total + a (hi + lo). HALF: a is a bfloat16 number; EXACT: none of the halves is dropped."""
    if EXACT and not HALF:
        upper, lower = halves(a)
        total = dot(upper, hi, total)
        total = dot(upper, lo, total)
        return dot(lower, hi, total)
    else:
        upper = a.to(tl.bfloat16)
        total = dot(upper, hi, total)
        if EXACT:
            total = dot(upper, lo, total)
        return total


@triton.jit
def matrix(at, row, column, stride):
    """Both halves of a matrix of each feature; `at` is where they begin, `(features, 1, 1)`."""
    return halves(tl.load(at + row[None, :, None] * stride + column[None, None, :]))


@triton.jit
def response(K, f, j, T: tl.constexpr, PARTS: tl.constexpr):
    """Both halves of R: entry k of a reversed chunk reaches entry i after i + k - T + 1 steps."""
    lag = j[None, :, None] + j[None, None, :] - (T - 1)
    return halves(tl.load(K + f // PARTS * T + lag, mask=(lag >= 0) & (f % PARTS == 0), other=0.0))


@triton.jit
def steps_of_rows(lengths, b, length, inside, BY_ROW: tl.constexpr):
    """The number of steps of each row."""
    steps = length
    if BY_ROW:
        steps = tl.load(lengths + b, mask=inside, other=0)[:, None]
    return steps


@triton.jit
def place(b, h, p, way, length, steps, row, LONG: tl.constexpr):
    """Where position p of each row and feature is in a sequence, `(rows, T, features)`."""
    t = tl.where(way > 0, p, steps - 1 - p)
    if LONG:
        t = t.to(tl.int64)
    return (b[:, None] * length + t)[:, :, None] * row + h[None, None, :]


@triton.jit
def read(x, at, p, steps, inside):
    valid = ((p >= 0) & (p < steps))[:, :, None]
    return tl.load(x + at, mask=valid & inside, other=0.0).to(tl.float32)


@triton.jit
def turned(ar, ai, xr, xi):
    return ar * xr - ai * xi, ar * xi + ai * xr


@triton.jit
def folded(x):
    """The upper half of the rows added to the lower one: a thread has both in its registers."""
    B: tl.constexpr = x.shape[0]
    M: tl.constexpr = x.shape[1]
    return total_of(tl.reshape(x, [B, 2, M // 2, x.shape[2]]), 1)


@triton.jit
def for_parts(x, PARTS: tl.constexpr):
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
def of_parts(x, PARTS: tl.constexpr):
    """The sums over the parts of the modes, `(rows, T, features)`."""
    x = tl.permute(x, (1, 2, 0))
    if PARTS == 1:
        return x
    else:
        M: tl.constexpr = x.shape[0]
        T: tl.constexpr = x.shape[1]
        left, right = tl.split(tl.reshape(x, [M, T, x.shape[2] // 2, 2]))
        return of_parts(tl.permute(left + right, (2, 0, 1)), PARTS // 2)


@triton.jit
def state_at(states, r, f, n, lanes, size):
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
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    BH: tl.constexpr,
    M: tl.constexpr,
    MOMENT: tl.constexpr,
    BY_ROW: tl.constexpr,
    LONG: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The state that each segment adds, from zero; with MOMENT the second one as well.

    It takes NM modes to a lane, though `end`, F and A lie in lanes of SIZE.
    """
    HALF: tl.constexpr = x.dtype.element_ty == tl.bfloat16
    NS: tl.constexpr = 4 if MOMENT else 2
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    lane = f * (NM // SIZE) + (n // SIZE)[None, None, :]
    k = (n % SIZE)[None, None, :]
    powers = F + lane * (2 * T * SIZE) + j[None, :, None] * SIZE + k
    fr, fr_lo = halves(tl.load(powers))
    fi, fi_lo = halves(tl.load(powers + T * SIZE))
    ar = tl.load(A + lane * (2 * SIZE) + k)
    ai = tl.load(A + lane * (2 * SIZE) + SIZE + k)
    steps = steps_of_rows(lengths, b, length, r < rows, BY_ROW)
    first = origin
    if BY_ROW:  # the last segment ends where the row does
        first = steps - G * S
    p = first + (r % G)[:, None] * S + (T - 1 - j)[None, :] - lag
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = place(b, h, p, way, length, steps, x_row, LONG)
    xr = tl.full([BH * PARTS, M, NM], 0.0, tl.float32)
    xi = tl.full([BH * PARTS, M, NM], 0.0, tl.float32)
    wr = tl.full([BH * PARTS, M, NM], 0.0, tl.float32)
    wi = tl.full([BH * PARTS, M, NM], 0.0, tl.float32)
    next_chunk = read(x, at, p, steps, inside)
    for _ in range(S // T):
        v = for_parts(next_chunk, PARTS)
        p += T
        at += way * T * x_row
        next_chunk = read(x, at, p, steps, inside)
        if MOMENT:
            weighed = v * j[None, None, :].to(tl.float32)
            mr, mi = turned(ar, ai, wr + T * xr, wi + T * xi)
            wr = plus_product(mr, weighed, fr, fr_lo, EXACT, False)
            wi = plus_product(mi, weighed, fi, fi_lo, EXACT, False)
        mr, mi = turned(ar, ai, xr, xi)
        xr = plus_product(mr, v, fr, fr_lo, EXACT, HALF)
        xi = plus_product(mi, v, fi, fi_lo, EXACT, HALF)
    to = end + (r[None, :, None].to(tl.int64) * lanes + lane) * (NS * SIZE) + k
    in_range = (r < rows)[None, :, None]
    tl.store(to, xr, mask=in_range)
    tl.store(to + SIZE, xi, mask=in_range)
    if MOMENT:
        tl.store(to + 2 * SIZE, wr, mask=in_range)
        tl.store(to + 3 * SIZE, wi, mask=in_range)


@triton.jit(do_not_specialize=CHANGING)
def outputs(
    x,
    y,
    start,
    F,
    E,
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
    EXACT: tl.constexpr,
):
    """The outputs, `lag` steps later, of segments of known start; with ADD added to the old."""
    HALF: tl.constexpr = x.dtype.element_ty == tl.bfloat16
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    r = tl.program_id(1) * M + tl.arange(0, M)
    j = tl.arange(0, T)
    n = tl.arange(0, NM)
    b = r // G
    f = (tl.program_id(0) * (BH * PARTS) + tl.arange(0, BH * PARTS))[:, None, None]
    fr, fr_lo = matrix(F + f * (2 * T * NM), j, n, NM)
    fi, fi_lo = matrix(F + f * (2 * T * NM) + T * NM, j, n, NM)
    reads, reads_lo = matrix(E + f * (2 * NM * T), n, j, T)
    readi, readi_lo = matrix(E + f * (2 * NM * T) + NM * T, n, j, T)
    R, R_lo = response(K, f, j, T, PARTS)
    ar = tl.load(A + f * (2 * NM) + n[None, None, :])
    ai = tl.load(A + f * (2 * NM) + NM + n[None, None, :])
    steps = steps_of_rows(lengths, b, length, r < rows, BY_ROW)
    q = origin + (r % G)[:, None] * S + j[None, :] + lag
    p = origin + (r % G)[:, None] * S + (T - 1 - j)[None, :]
    inside = (r < rows)[:, None, None] & (h < features)[None, None, :]
    at = place(b, h, p, way, length, steps, x_row, LONG)
    to = place(b, h, q, way, length, steps, y_row, LONG)
    in_range = (r < rows)[None, :, None]
    xr = tl.load(state_at(start, r, f, n, lanes, 2 * NM), mask=in_range, other=0.0)
    xi = tl.load(state_at(start, r, f, n, lanes, 2 * NM) + NM, mask=in_range, other=0.0)
    zero = tl.full([BH * PARTS, M, T], 0.0, tl.float32)
    next_chunk = read(x, at, p, steps, inside)
    # A sum takes the layout of the product in it, so numbers are moved before they are halved.
    level = 0.0 * plus_product(zero, for_parts(next_chunk, PARTS), R, R_lo, False, False)
    for _ in range(S // T):
        v = for_parts(next_chunk, PARTS) + level
        p += T
        at += way * T * x_row
        next_chunk = read(x, at, p, steps, inside)
        out = plus_product(zero, v, R, R_lo, EXACT, HALF)
        out = plus_product(out, xr, reads, reads_lo, EXACT, False)
        out = plus_product(out, xi, readi, readi_lo, EXACT, False)
        result = of_parts(out, PARTS)
        valid = ((q >= 0) & (q < steps))[:, :, None] & inside
        if ADD:
            result += tl.load(y + to, mask=valid, other=0.0).to(tl.float32)
        tl.store(y + to, result.to(y.dtype.element_ty), mask=valid)
        q += T
        to += way * T * y_row
        mr, mi = turned(ar, ai, xr, xi)
        xr = plus_product(mr, v, fr, fr_lo, EXACT, HALF)
        xi = plus_product(mi, v, fi, fi_lo, EXACT, HALF)
