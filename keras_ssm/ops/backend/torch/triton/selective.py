"""The selective scan of Mamba as Triton kernels: a thread a feature, its states in registers.

    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t        y_t = h_t C_t + D x_t

Features lie beside each other in memory, and states over them, `(..., state_dim, features)`. Where
programs would not fill a card, sequences are cut into segments that run side by side: their ends
from zero, then the states before them, then all steps. The states before some steps are kept for
the gradient, which makes those between them anew.
"""

import triton
import triton.language as tl

from keras_ssm.ops.backend.torch.triton.walk import total_of

LOG2_E = tl.constexpr(1.4426950408889634)

SIZES = ["length", "features", "states", "G", "S"]


@triton.jit
def _softplus(z):
    """log(1 + e^z), without cancellation for small results; and its slope."""
    small = tl.exp(-tl.abs(z))
    one = 1.0 + small
    # By the logarithm of the rounded sum, whose error cancels.
    log = tl.where(one == 1.0, small, small * tl.log(one) / tl.where(one == 1.0, 1.0, one - 1.0))
    return tl.maximum(z, 0.0) + log, tl.where(z < 0.0, small, 1.0) / one


@triton.jit
def sequence(x, b, t, h, length, features):
    """Some steps of some features, `(T, features)`."""
    at = (b * length + t)[:, None] * features + h[None, :]
    inside = (t < length)[:, None] & (h < features)[None, :]
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def step_sizes(
    raw, bias, mask, b, t, h, length, features, PROJECTED: tl.constexpr, MASKED: tl.constexpr
):
    """The sizes of some steps `(T, features)`, and their slopes by `raw`; 0 beyond the end."""
    dt = sequence(raw, b, t, h, length, features)
    inside = (t < length)[:, None] & (h < features)[None, :]
    slope = tl.full(dt.shape, 1.0, tl.float32)
    if PROJECTED:
        dt, slope = _softplus(dt + tl.load(bias + h, mask=h < features, other=0.0)[None, :])
    if MASKED:
        inside = inside & (tl.load(mask + b * length + t, mask=t < length, other=0) != 0)[:, None]
    return tl.where(inside, dt, 0.0), tl.where(inside, slope, 0.0)


@triton.jit
def row(x, j, i: tl.constexpr):
    """Row i of `(T, features)`, which a thread has in its registers."""
    return total_of(tl.where((j == i)[:, None], x, 0.0), 0)


@triton.jit
def weights(B, b, t, n, length, states):
    """B or C of one step, `(state_dim, 1)`."""
    at = B + (b * length + t) * states + n
    return tl.load(at, mask=(t < length) & (n < states), other=0.0).to(tl.float32)[:, None]


@triton.jit
def rates(A, n, h, states, features):
    """A in powers of two, `(state_dim, features)`."""
    at = A + h[None, :] * states + n[:, None]
    return LOG2_E * tl.load(at, mask=(n < states)[:, None] & (h < features)[None, :], other=0.0)


@triton.jit(do_not_specialize=SIZES)
def ends(
    x,
    raw,
    bias,
    mask,
    A,
    W,
    end,
    total,
    length,
    features,
    states,
    G,
    S,
    T: tl.constexpr,
    NM: tl.constexpr,
    BH: tl.constexpr,
    PROJECTED: tl.constexpr,
    MASKED: tl.constexpr,
    ADJOINT: tl.constexpr,
):
    """What each segment adds to the state, from zero, and the sum of its step sizes.

    With ADJOINT the walk goes back over the gradient of the outputs, and W is C and not B.
    """
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    program = tl.program_id(1).to(tl.int64)
    b = program // G
    first = (program % G).to(tl.int32) * S
    n = tl.arange(0, NM)
    j = tl.arange(0, T)
    a = rates(A, n, h, states, features)
    state = tl.full([NM, BH], 0.0, tl.float32)
    sum_dt = tl.full([BH], 0.0, tl.float32)
    for c in range(S // T):
        start = first + (S - T - c * T if ADJOINT else c * T)
        t = start + j
        driven = sequence(x, b, t, h, length, features)
        dt, _ = step_sizes(raw, bias, mask, b, t, h, length, features, PROJECTED, MASKED)
        sum_dt += total_of(dt, 0)
        for k in tl.static_range(T):
            size = row(dt, j, T - 1 - k if ADJOINT else k)
            value = row(driven, j, T - 1 - k if ADJOINT else k)
            w = weights(W, b, start + (T - 1 - k if ADJOINT else k), n, length, states)
            gain = tl.exp2(size[None, :] * a)
            if ADJOINT:
                state = gain * (state + w * value[None, :])
            else:
                state = gain * state + w * (size * value)[None, :]
    at = (program * states + n[:, None]) * features + h[None, :]
    tl.store(end + at, state, mask=(n < states)[:, None] & (h < features)[None, :])
    tl.store(total + program * features + h, sum_dt, mask=h < features)


@triton.jit(do_not_specialize=SIZES)
def starts(
    A,
    end,
    total,
    initial,
    start,
    features,
    states,
    G,
    NM: tl.constexpr,
    BH: tl.constexpr,
    INITIAL: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """The state before each segment, in the way of the walk."""
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    b = tl.program_id(1).to(tl.int64)
    n = tl.arange(0, NM)
    here = (n < states)[:, None] & (h < features)[None, :]
    a = rates(A, n, h, states, features)
    state = tl.full([NM, BH], 0.0, tl.float32)
    if INITIAL:
        at = (b * states + n[:, None]) * features + h[None, :]
        state = tl.load(initial + at, mask=here, other=0.0)
    for k in range(G):
        program = b * G + (G - 1 - k if REVERSE else k)
        at = (program * states + n[:, None]) * features + h[None, :]
        tl.store(start + at, state, mask=here)
        sum_dt = tl.load(total + program * features + h, mask=h < features, other=0.0)
        state = tl.exp2(sum_dt[None, :] * a) * state + tl.load(end + at, mask=here, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def outputs(
    x,
    raw,
    bias,
    mask,
    A,
    B,
    C,
    D,
    start,
    y,
    kept,
    last,
    length,
    features,
    states,
    G,
    S,
    T: tl.constexpr,
    EVERY: tl.constexpr,
    NM: tl.constexpr,
    BH: tl.constexpr,
    PROJECTED: tl.constexpr,
    MASKED: tl.constexpr,
    DIRECT: tl.constexpr,
    STARTED: tl.constexpr,
    KEEP: tl.constexpr,
):
    """The outputs, the last state, and with KEEP the states before every T EVERY steps."""
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    program = tl.program_id(1).to(tl.int64)
    b = program // G
    g = (program % G).to(tl.int32)
    n = tl.arange(0, NM)
    j = tl.arange(0, T)
    in_h = h < features
    here = (n < states)[:, None] & in_h[None, :]
    place = n[:, None] * features + h[None, :]
    a = rates(A, n, h, states, features)
    state = tl.full([NM, BH], 0.0, tl.float32)
    if STARTED:
        state = tl.load(start + program * states * features + place, mask=here, other=0.0)
    skip = tl.full([BH], 0.0, tl.float32)
    if DIRECT:
        skip = tl.load(D + h, mask=in_h, other=0.0)
    for block in range(S // (T * EVERY)):
        if KEEP:
            kept_at = (program * (S // (T * EVERY)) + block) * states * features + place
            tl.store(kept + kept_at, state, mask=here)
        for c in range(EVERY):
            first = g * S + (block * EVERY + c) * T
            t = first + j
            X = sequence(x, b, t, h, length, features)
            dt, _ = step_sizes(raw, bias, mask, b, t, h, length, features, PROJECTED, MASKED)
            out = X * skip[None, :]
            for i in tl.static_range(T):
                size = row(dt, j, i)
                w = weights(B, b, first + i, n, length, states)
                state = tl.exp2(size[None, :] * a) * state + w * (size * row(X, j, i))[None, :]
                read = total_of(weights(C, b, first + i, n, length, states) * state, 0)
                out += tl.where((j == i)[:, None], read[None, :], 0.0)
            at = (b * length + t)[:, None] * features + h[None, :]
            inside = (t < length)[:, None] & in_h[None, :]
            tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
    if g == G - 1:  # sizes are 0 beyond the end, and the state stays
        tl.store(last + b * states * features + place, state, mask=here)
