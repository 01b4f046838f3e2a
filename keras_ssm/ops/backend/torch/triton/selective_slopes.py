"""The gradients of a selective scan: states made anew, and adjoints the other way."""

import triton
import triton.language as tl

from keras_ssm.ops.backend.torch.triton.selective import (
    LOG2_E,
    SIZES,
    rates,
    row,
    sequence,
    step_sizes,
    weights,
)
from keras_ssm.ops.backend.torch.triton.walk import total_of


@triton.jit
def _back(
    i: tl.constexpr,
    state,
    adjoint,
    slope,
    dx,
    d_dt,
    dt,
    X,
    dy,
    a,
    B,
    C,
    dB,
    dC,
    b,
    first,
    n,
    j,
    length,
    states,
    T: tl.constexpr,
):
    """Steps i to T: forward on the way in, and their gradients on the way out."""
    if i == T:
        return adjoint, slope, dx, d_dt
    else:
        size = row(dt, j, i)
        x = row(X, j, i)
        d = row(dy, j, i)
        w = weights(B, b, first + i, n, length, states)
        gain = tl.exp2(size[None, :] * a)
        after = gain * state + w * (size * x)[None, :]
        adjoint, slope, dx, d_dt = _back(
            i + 1,
            after,
            adjoint,
            slope,
            dx,
            d_dt,
            dt,
            X,
            dy,
            a,
            B,
            C,
            dB,
            dC,
            b,
            first,
            n,
            j,
            length,
            states,
            T,
        )
        adjoint += weights(C, b, first + i, n, length, states) * d[None, :]
        at = (b * length + first + i) * states + n
        inside = (first + i < length) & (n < states)
        tl.store(dC + at, total_of(after * d[None, :], 1), mask=inside)
        tl.store(dB + at, total_of(adjoint * (size * x)[None, :], 1), mask=inside)
        d_driven = total_of(adjoint * w, 0)
        adjoint = gain * adjoint
        through = adjoint * state  # the gradient of dt A
        slope += through * size[None, :]
        d_size = d_driven * x + total_of(through * a, 0) / LOG2_E
        here = (j == i)[:, None]
        dx += tl.where(here, (d_driven * size)[None, :], 0.0)
        d_dt += tl.where(here, d_size[None, :], 0.0)
        return adjoint, slope, dx, d_dt


@triton.jit(do_not_specialize=SIZES)
def slopes(
    x,
    raw,
    bias,
    mask,
    A,
    B,
    C,
    D,
    dy,
    kept,
    later,
    scratch,
    dx,
    d_raw,
    dA,
    dB,
    dC,
    dD,
    d_initial,
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
):
    """All gradients: of A and D for each program, of B and C for each block of features."""
    h = tl.program_id(0) * BH + tl.arange(0, BH)
    program = tl.program_id(1).to(tl.int64)
    b = program // G
    g = (program % G).to(tl.int32)
    n = tl.arange(0, NM)
    j = tl.arange(0, T)
    in_h = h < features
    here = (n < states)[:, None] & in_h[None, :]
    place = n[:, None] * features + h[None, :]
    size_of_state = states.to(tl.int64) * features
    a = rates(A, n, h, states, features)
    adjoint = tl.load(later + program * size_of_state + place, mask=here, other=0.0)
    slope = tl.full([NM, BH], 0.0, tl.float32)
    d_skip = tl.full([BH], 0.0, tl.float32)
    skip = tl.full([BH], 0.0, tl.float32)
    if DIRECT:
        skip = tl.load(D + h, mask=in_h, other=0.0)
    part = tl.program_id(0).to(tl.int64) * (tl.num_programs(1) // G) * length * states
    dB += part
    dC += part
    blocks = S // (T * EVERY)
    for k in range(blocks):
        block = blocks - 1 - k
        at = (program * blocks + block) * size_of_state + place
        state = tl.load(kept + at, mask=here, other=0.0)
        for c in range(EVERY):
            at = (program * EVERY + c) * size_of_state + place
            tl.store(scratch + at, state, mask=here)
            first = g * S + (block * EVERY + c) * T
            X = sequence(x, b, first + j, h, length, features)
            dt, _ = step_sizes(
                raw, bias, mask, b, first + j, h, length, features, PROJECTED, MASKED
            )
            for i in tl.static_range(T):
                size = row(dt, j, i)
                w = weights(B, b, first + i, n, length, states)
                state = tl.exp2(size[None, :] * a) * state + w * (size * row(X, j, i))[None, :]
        tl.debug_barrier()
        for c in range(EVERY):
            at = (program * EVERY + EVERY - 1 - c) * size_of_state + place
            state = tl.load(scratch + at, mask=here, other=0.0)
            first = g * S + (block * EVERY + EVERY - 1 - c) * T
            t = first + j
            X = sequence(x, b, t, h, length, features)
            d = sequence(dy, b, t, h, length, features)
            dt, by_raw = step_sizes(raw, bias, mask, b, t, h, length, features, PROJECTED, MASKED)
            zero = tl.full([T, BH], 0.0, tl.float32)
            adjoint, slope, d_x, d_dt = _back(
                0,
                state,
                adjoint,
                slope,
                d * skip[None, :],
                zero,
                dt,
                X,
                d,
                a,
                B,
                C,
                dB,
                dC,
                b,
                first,
                n,
                j,
                length,
                states,
                T,
            )
            d_skip += total_of(X * d, 0)
            to = (b * length + t)[:, None] * features + h[None, :]
            inside = (t < length)[:, None] & in_h[None, :]
            tl.store(dx + to, d_x.to(dx.dtype.element_ty), mask=inside)
            tl.store(d_raw + to, (d_dt * by_raw).to(d_raw.dtype.element_ty), mask=inside)
        tl.debug_barrier()
    tl.store(dA + program * size_of_state + place, slope, mask=here)
    tl.store(dD + program * features + h, d_skip, mask=in_h)
    if g == 0:
        tl.store(d_initial + b * size_of_state + place, adjoint, mask=here)
