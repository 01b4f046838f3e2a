"""The recurrence of a diagonal system as one Triton kernel. Not measured on a GPU."""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_shapes import padded

# Steps in a block that is scanned at once, and modes side by side.
BLOCK_STEPS = 64
BLOCK_MODES = 16


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
def _scan_kernel(
    dA,
    dA_rows,
    inputs,
    initial,
    out,
    states,
    d_dA,
    d_initial,
    steps,
    modes,
    BLOCK: tl.constexpr,
    TILE_MODES: tl.constexpr,
    VARIES: tl.constexpr,
    REVERSE: tl.constexpr,
    ADJOINT: tl.constexpr,
):
    """With ADJOINT, `inputs` is the gradient of `states`, and REVERSE the way of the adjoint."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * TILE_MODES + tl.arange(0, TILE_MODES)
    t = tl.arange(0, BLOCK)
    in_n = n < modes
    size = 2 * modes
    inputs += row * steps * size
    out += row * steps * size
    dA += tl.load(dA_rows + row) * size * (steps if VARIES else 1)
    start_re = tl.load(initial + row * size + n, mask=in_n, other=0.0)[None, :]
    start_im = tl.load(initial + row * size + modes + n, mask=in_n, other=0.0)[None, :]
    # The step at which the recurrence leaves the initial state, and that of the transition there.
    edge = steps - 1 if REVERSE != ADJOINT else 0
    sign = -1.0 if ADJOINT else 1.0
    one_re = tl.load(dA + (edge if VARIES else 0) * size + n, mask=in_n, other=0.0)[None, :]
    one_im = tl.load(dA + (edge if VARIES else 0) * size + modes + n, mask=in_n, other=0.0)
    one_im = sign * one_im[None, :]
    if ADJOINT:
        re = tl.full([1, TILE_MODES], 0.0, tl.float32)
        im = tl.full([1, TILE_MODES], 0.0, tl.float32)
    else:
        re, im = start_re, start_im
    sum_re = tl.full([1, TILE_MODES], 0.0, tl.float32)
    sum_im = tl.full([1, TILE_MODES], 0.0, tl.float32)

    blocks = (steps + BLOCK - 1) // BLOCK
    for i in range(blocks):
        at = (blocks - 1 - i if REVERSE else i) * BLOCK + t
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
        tl.store(out + offset, x_re, mask=mask)
        tl.store(out + offset + modes, x_im, mask=mask)
        last = (t == (0 if REVERSE else BLOCK - 1))[:, None]
        re = tl.reduce(tl.where(last, x_re, 0.0), 0, _add)[None, :]
        im = tl.reduce(tl.where(last, x_im, 0.0), 0, _add)[None, :]

        if ADJOINT:
            before = at - 1 if REVERSE else at + 1
            inner = ((before >= 0) & (before < steps) & (at < steps))[:, None] & in_n[None, :]
            states_at = states + row * steps * size + before[:, None] * size + n[None, :]
            p_re = tl.load(states_at, mask=inner, other=0.0)
            p_im = tl.load(states_at + modes, mask=inner, other=0.0)
            first = (at == edge)[:, None]
            p_re = tl.where(first, start_re, p_re)
            p_im = tl.where(first, start_im, p_im)
            d_re = p_re * x_re + p_im * x_im
            d_im = p_re * x_im - p_im * x_re
            if VARIES:
                tl.store(d_dA + row * steps * size + offset, d_re, mask=mask)
                tl.store(d_dA + row * steps * size + offset + modes, d_im, mask=mask)
            else:
                sum_re += tl.reduce(tl.where(mask, d_re, 0.0), 0, _add)[None, :]
                sum_im += tl.reduce(tl.where(mask, d_im, 0.0), 0, _add)[None, :]

    if ADJOINT:
        ends = row * size + n[None, :]
        mask = in_n[None, :]
        tl.store(d_initial + ends, one_re * re - one_im * im, mask=mask)
        tl.store(d_initial + ends + modes, one_re * im + one_im * re, mask=mask)
        if not VARIES:
            tl.store(d_dA + ends, sum_re, mask=mask)
            tl.store(d_dA + ends + modes, sum_im, mask=mask)


def _dA_rows(dA, lead):
    """The row of dA that each row of the inputs uses, `(rows,)`."""
    own = dA.shape[:-2]
    rows = torch.arange(own.numel(), device=dA.device).reshape(own)
    return rows.expand(lead).reshape(-1).contiguous()  # one row expanded stays a view


def _run(dA, inputs, initial, reverse, states=None):
    """The states after each step or, given those, the gradients `(inputs, dA, initial)`.

    `dA` and its gradient then have the leading axes of `inputs`, over which it was broadcast.
    """
    adjoint, (*lead, steps, size) = states is not None, inputs.shape
    varies = dA.shape[-2] != 1
    dA, inputs, initial = dA.contiguous(), inputs.contiguous(), initial.contiguous()
    out, unused = torch.empty_like(inputs), inputs
    d_dA = inputs.new_empty((*lead, steps if varies else 1, size)) if adjoint else unused
    d_initial = torch.empty_like(initial) if adjoint else unused
    modes = size // 2
    tile = min(padded(modes, 1), BLOCK_MODES)
    with torch.cuda.device_of(inputs):
        _scan_kernel[(initial.numel() // size, triton.cdiv(modes, tile))](
            dA,
            _dA_rows(dA, lead),
            inputs,
            initial,
            out,
            states if adjoint else unused,
            d_dA,
            d_initial,
            steps,
            modes,
            BLOCK=min(padded(steps), BLOCK_STEPS),
            TILE_MODES=tile,
            VARIES=varies,
            REVERSE=reverse,
            ADJOINT=adjoint,
            num_warps=4,
        )
    return (out, d_dA, d_initial) if adjoint else out


class DiagonalScan(torch.autograd.Function):
    """`diagonal_scan` with its gradient: the same kernel with the conjugate, the other way."""

    @staticmethod
    def forward(ctx, dA, inputs, initial, reverse):
        states = _run(dA, inputs, initial, reverse)
        ctx.save_for_backward(dA, initial, states)
        ctx.reverse = reverse
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        dA, initial, states = ctx.saved_tensors
        d_inputs, d_dA, d_initial = _run(dA, upstream, initial, not ctx.reverse, states)
        return d_dA.sum_to_size(dA.shape), d_inputs, d_initial, None
