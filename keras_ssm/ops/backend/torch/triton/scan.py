"""The recurrence of a diagonal system as Triton kernels.

Where there are few rows, sequences are cut into segments that run side by side: their ends from
zero, with the product of their transitions, then the states before them, then all states.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd

# Steps in a block that is scanned at once, and modes side by side.
BLOCK_STEPS = 64
BLOCK_MODES = 16

# Programs that fill a card, and steps of a segment below which it is not worth while.
PROGRAMS = 528
SHORTEST_SEGMENT = 256


@triton.jit
def _after(a_re, a_im, s_re, s_im, b_re, b_im, t_re, t_im):
    """x -> b (a x + s) + t, as one step."""
    return (
        b_re * a_re - b_im * a_im,
        b_re * a_im + b_im * a_re,
        b_re * s_re - b_im * s_im + t_re,
        b_re * s_im + b_im * s_re + t_im,
    )


@triton.jit
def _add(a, b):
    return a + b


@triton.jit
def _picked(x, chosen):
    return tl.reduce(tl.where(chosen, x, 0.0), 0, _add)[None, :]


@triton.jit(do_not_specialize=["steps", "G", "S"])
def _scan_kernel(
    dA,
    dA_rows,
    inputs,
    initial,
    start,
    out,
    states,
    d_dA,
    d_initial,
    steps,
    modes,
    G,
    S,
    BLOCK: tl.constexpr,
    TILE_MODES: tl.constexpr,
    VARIES: tl.constexpr,
    REVERSE: tl.constexpr,
    ADJOINT: tl.constexpr,
    STARTED: tl.constexpr,
    ENDS: tl.constexpr,
):
    """With ADJOINT, `inputs` is the gradient of `states`, and REVERSE the way of the adjoint.

    STARTED: `start` has the state before each segment. ENDS: `out` gets no states, but of each
    segment the product of its transitions, then the state at its end from zero.
    """
    program = tl.program_id(0).to(tl.int64)
    row = program // G
    g = (program % G).to(tl.int32)
    n = tl.program_id(1) * TILE_MODES + tl.arange(0, TILE_MODES)
    t = tl.arange(0, BLOCK)
    in_n = n < modes
    size = 2 * modes
    inputs += row * steps * size
    dA += tl.load(dA_rows + row) * size * (steps if VARIES else 1)
    first_re = tl.load(initial + row * size + n, mask=in_n, other=0.0)[None, :]
    first_im = tl.load(initial + row * size + modes + n, mask=in_n, other=0.0)[None, :]
    # The first step of the recurrence, and its transition.
    edge = steps - 1 if REVERSE != ADJOINT else 0
    sign = -1.0 if ADJOINT else 1.0
    one_re = tl.load(dA + (edge if VARIES else 0) * size + n, mask=in_n, other=0.0)[None, :]
    one_im = tl.load(dA + (edge if VARIES else 0) * size + modes + n, mask=in_n, other=0.0)
    one_im = sign * one_im[None, :]
    re = tl.full([1, TILE_MODES], 0.0, tl.float32)
    im = tl.full([1, TILE_MODES], 0.0, tl.float32)
    if STARTED:
        re = tl.load(start + program * size + n, mask=in_n, other=0.0)[None, :]
        im = tl.load(start + program * size + modes + n, mask=in_n, other=0.0)[None, :]
    over_re = tl.full([1, TILE_MODES], 1.0, tl.float32)
    over_im = tl.full([1, TILE_MODES], 0.0, tl.float32)
    sum_re = tl.full([1, TILE_MODES], 0.0, tl.float32)
    sum_im = tl.full([1, TILE_MODES], 0.0, tl.float32)

    blocks = S // BLOCK
    for i in range(blocks):
        at = g * S + (blocks - 1 - i if REVERSE else i) * BLOCK + t
        valid = (at < steps)[:, None]
        mask = valid & in_n[None, :]
        offset = at[:, None] * size + n[None, :]
        s_re = tl.load(inputs + offset, mask=mask, other=0.0)
        s_im = tl.load(inputs + offset + modes, mask=mask, other=0.0)
        # Steps beyond the end keep the state: their transition is one.
        if VARIES:
            # The adjoint of a step passes through the transition of the step after it.
            shift = (1 if REVERSE else -1) if ADJOINT else 0
            source = at + shift
            known = ((source >= 0) & (source < steps) & (at < steps))[:, None] & in_n[None, :]
            dA_at = dA + source[:, None] * size + n[None, :]
            a_re = tl.load(dA_at, mask=known, other=1.0)
            a_im = sign * tl.load(dA_at + modes, mask=known, other=0.0)
        else:
            a_re = tl.where(valid, one_re, 1.0)
            a_im = tl.where(valid, one_im, 0.0)
        a_re, a_im, s_re, s_im = tl.associative_scan(
            (a_re, a_im, s_re, s_im), 0, _after, reverse=REVERSE
        )
        x_re = a_re * re - a_im * im + s_re
        x_im = a_re * im + a_im * re + s_im
        last = (t == (0 if REVERSE else BLOCK - 1))[:, None]
        re = _picked(x_re, last)
        im = _picked(x_im, last)
        if ENDS:
            p_re = _picked(a_re, last)
            p_im = _picked(a_im, last)
            moved = over_re * p_re - over_im * p_im
            over_im = over_re * p_im + over_im * p_re
            over_re = moved
        else:
            out_at = out + row * steps * size + offset
            tl.store(out_at, x_re, mask=mask)
            tl.store(out_at + modes, x_im, mask=mask)

        if ADJOINT and not ENDS:
            before = at - 1 if REVERSE else at + 1
            inner = ((before >= 0) & (before < steps) & (at < steps))[:, None] & in_n[None, :]
            states_at = states + row * steps * size + before[:, None] * size + n[None, :]
            p_re = tl.load(states_at, mask=inner, other=0.0)
            p_im = tl.load(states_at + modes, mask=inner, other=0.0)
            first = (at == edge)[:, None]
            p_re = tl.where(first, first_re, p_re)
            p_im = tl.where(first, first_im, p_im)
            d_re = p_re * x_re + p_im * x_im
            d_im = p_re * x_im - p_im * x_re
            if VARIES:
                tl.store(d_dA + row * steps * size + offset, d_re, mask=mask)
                tl.store(d_dA + row * steps * size + offset + modes, d_im, mask=mask)
            else:
                sum_re += _picked(d_re, mask)
                sum_im += _picked(d_im, mask)

    mask = in_n[None, :]
    if ENDS:
        ends = out + program * (2 * size) + n[None, :]
        tl.store(ends, over_re, mask=mask)
        tl.store(ends + modes, over_im, mask=mask)
        tl.store(ends + size, re, mask=mask)
        tl.store(ends + size + modes, im, mask=mask)
    elif ADJOINT:
        ends = program * size + n[None, :]
        if not VARIES:
            tl.store(d_dA + ends, sum_re, mask=mask)
            tl.store(d_dA + ends + modes, sum_im, mask=mask)
        if g == (0 if REVERSE else G - 1):  # the segment in which the adjoint arrives
            ends = row * size + n[None, :]
            tl.store(d_initial + ends, one_re * re - one_im * im, mask=mask)
            tl.store(d_initial + ends + modes, one_re * im + one_im * re, mask=mask)


@triton.jit(do_not_specialize=["rows", "G"])
def _starts_kernel(
    ends,
    initial,
    start,
    rows,
    modes,
    G,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
    INITIAL: tl.constexpr,
):
    """The state before each segment, from those that segments add and their transitions."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = i // modes
    n = i % modes
    size = 2 * modes
    mask = row < rows
    re = tl.full([BLOCK], 0.0, tl.float32)
    im = tl.full([BLOCK], 0.0, tl.float32)
    if INITIAL:
        re = tl.load(initial + row * size + n, mask=mask, other=0.0)
        im = tl.load(initial + row * size + modes + n, mask=mask, other=0.0)
    for k in range(G):
        at = row * G + (G - 1 - k if REVERSE else k)
        tl.store(start + at * size + n, re, mask=mask)
        tl.store(start + at * size + modes + n, im, mask=mask)
        end = ends + at * (2 * size) + n
        a_re = tl.load(end, mask=mask, other=0.0)
        a_im = tl.load(end + modes, mask=mask, other=0.0)
        moved = a_re * re - a_im * im + tl.load(end + size, mask=mask, other=0.0)
        im = a_re * im + a_im * re + tl.load(end + size + modes, mask=mask, other=0.0)
        re = moved


def _dA_rows(dA, lead):
    """The row of dA that each row of the inputs uses, `(rows,)`."""
    batch_shape = dA.shape[:-2]
    if batch_shape.numel() == 1:
        return torch.zeros(lead.numel(), dtype=torch.int64, device=dA.device)
    rows = torch.arange(batch_shape.numel(), device=dA.device).reshape(batch_shape)
    return rows.expand(lead).reshape(-1).contiguous()  # one row expanded stays a view


def _run(dA, inputs, initial, reverse, states=None):
    """The states after each step or, given those, the gradients `(inputs, dA, initial)`.

    `dA` and its gradient then have the leading axes of `inputs`, over which it was broadcast.
    """
    adjoint, (*lead, steps, size) = states is not None, inputs.shape
    varies = dA.shape[-2] != 1
    dA, inputs, initial = dA.contiguous(), inputs.contiguous(), initial.contiguous()
    rows, modes = initial.numel() // size, size // 2
    tile = min(padded(modes, 1), BLOCK_MODES)
    block = min(padded(steps), BLOCK_STEPS)
    G = _segments(rows * triton.cdiv(modes, tile), steps)
    S = triton.cdiv(triton.cdiv(steps, G), block) * block
    dA_rows, out = _dA_rows(dA, inputs.shape[:-2]), torch.empty_like(inputs)
    d_dA = d_initial = inputs
    if adjoint:
        d_dA = inputs.new_empty((*lead, steps, size) if varies else (*lead, G, size))
        d_initial = torch.empty_like(initial)
    options = {"BLOCK": block, "TILE_MODES": tile, "VARIES": varies, "REVERSE": reverse}
    options.update(ADJOINT=adjoint, num_warps=4)
    grid = rows * G, triton.cdiv(modes, tile)
    start, started = initial, not adjoint

    def walk(out, **flags):
        _scan_kernel[grid](
            dA,
            dA_rows,
            inputs,
            initial,
            start,
            out,
            states if adjoint else inputs,
            d_dA,
            d_initial,
            steps,
            modes,
            G,
            S,
            **options,
            **flags,
        )

    with torch.cuda.device_of(inputs):
        if G > 1:
            ends = inputs.new_empty((rows, G, 2, size))
            walk(ends, STARTED=False, ENDS=True)
            start, started = inputs.new_empty((rows, G, size)), True
            options_of_starts = {"BLOCK": 128, "REVERSE": reverse, "INITIAL": not adjoint}
            _starts_kernel[(triton.cdiv(rows * modes, 128),)](
                ends, initial, start, rows, modes, G, **options_of_starts
            )
        walk(out, STARTED=started, ENDS=False)
    if not adjoint:
        return out
    return out, d_dA if varies else d_dA.sum(-2, keepdim=True), d_initial


def _segments(programs, steps):
    """The number of segments of a sequence."""
    G = 1
    while programs * G < PROGRAMS and steps // (2 * G) >= SHORTEST_SEGMENT:
        G *= 2
    return G


class DiagonalScan(torch.autograd.Function):
    """`diagonal_scan` with its gradient: the same kernel with the conjugate, the other way.

    `apply(dA, inputs, initial, reverse, portable)`, where `portable` is a function of the first
    three with the same result, for gradients of gradients, or `None`.
    """

    @staticmethod
    def forward(ctx, dA, inputs, initial, reverse, portable=None):
        states = _run(dA, inputs, initial, reverse)
        ctx.save_for_backward(dA, inputs if portable else None, initial, states)
        ctx.reverse, ctx.portable = reverse, portable
        return states

    @staticmethod
    def backward(ctx, upstream):
        dA, inputs, initial, states = ctx.saved_tensors
        if ctx.portable is not None and needs_autograd(upstream):
            return *by_autograd(ctx.portable, (dA, inputs, initial), upstream), None, None
        d_inputs, d_dA, d_initial = _run(dA, upstream, initial, not ctx.reverse, states)
        return d_dA.sum_to_size(dA.shape), d_inputs, d_initial, None, None
