"""The chunk step of a diagonal bank as one Triton kernel. Not measured on a GPU."""

import os

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_shapes import padded, slice_width
from keras_ssm.ops.backend.torch import exact_einsum

# Whether Triton made interpreted functions of the kernels below: it decides as they are defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _tf32(x):
    """Rounds to the 10 mantissa bits of TF32."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr, ROUND: tl.constexpr):
    if ROUND:
        a = _tf32(a)
        b = _tf32(b)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _chunk_kernel(
    u,
    response,
    E_in,
    transition,
    E_out,
    y,
    states,
    chunks,
    batch,
    T,
    modes,
    TILE_T: tl.constexpr,
    TILE_MODES: tl.constexpr,
    TILE_BATCH: tl.constexpr,
    SLICE: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
    ROUND: tl.constexpr,
):
    feature = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * TILE_BATCH + tl.arange(0, TILE_BATCH)
    t = tl.arange(0, TILE_T)
    n = tl.arange(0, TILE_MODES)
    in_b, in_t, in_n = rows < batch, t < T, n < modes
    states_mask = in_b[:, None] & in_n[None, :]
    y_mask = in_b[:, None] & in_t[None, :]
    out_mask = in_n[:, None] & in_t[None, :]

    response += feature * T * T
    E_in += feature * T * 2 * modes
    transition += feature * 2 * modes
    out_at = E_out + feature * T * 2 * modes + n[:, None] * T + t[None, :]
    a_re = tl.load(transition + n, mask=in_n, other=0.0)[None, :]
    a_im = tl.load(transition + modes + n, mask=in_n, other=0.0)[None, :]

    re = tl.full([TILE_BATCH, TILE_MODES], 0.0, tl.float32)
    im = tl.full([TILE_BATCH, TILE_MODES], 0.0, tl.float32)
    for step in range(chunks):
        chunk = chunks - 1 - step if REVERSE else step
        at = ((feature * batch + rows) * chunks + chunk)[:, None]
        states_at = states + at * (2 * modes) + n[None, :]
        tl.store(states_at, re, mask=states_mask)
        tl.store(states_at + modes, im, mask=states_mask)

        total = tl.full([TILE_BATCH, TILE_T], 0.0, tl.float32)
        rows_out = tl.load(out_at, mask=out_mask, other=0.0)
        total = _product(re, rows_out, total, PRECISION, ROUND)
        rows_out = tl.load(out_at + modes * T, mask=out_mask, other=0.0)
        total = _product(im, rows_out, total, PRECISION, ROUND)
        moved = a_re * re - a_im * im
        im = a_re * im + a_im * re
        re = moved

        for first in range(0, TILE_T, SLICE):
            j = first + tl.arange(0, SLICE)
            in_j = j < T
            part = tl.load(u + at * T + j[None, :], mask=in_b[:, None] & in_j[None, :], other=0.0)
            columns = tl.load(
                response + j[:, None] * T + t[None, :],
                mask=in_j[:, None] & in_t[None, :],
                other=0.0,
            )
            total = _product(part, columns, total, PRECISION, ROUND)
            in_at = E_in + j[:, None] * (2 * modes) + n[None, :]
            in_mask = in_j[:, None] & in_n[None, :]
            columns_in = tl.load(in_at, mask=in_mask, other=0.0)
            re = _product(part, columns_in, re, PRECISION, ROUND)
            columns_in = tl.load(in_at + modes, mask=in_mask, other=0.0)
            im = _product(part, columns_in, im, PRECISION, ROUND)
        tl.store(y + at * T + t[None, :], total, mask=y_mask)


def launch_options(precision, batch, T, modes):
    """Tile sizes and compiler options of the kernel."""
    return {
        "TILE_T": max(padded(T), slice_width(precision)),
        "TILE_MODES": padded(modes),
        "TILE_BATCH": min(padded(batch), 16 if precision == "float32" else 32),
        "SLICE": slice_width(precision),
        "PRECISION": "ieee" if precision == "float32" else "tf32",
        "num_warps": 8,
        "num_stages": 2,
    }


def _run(u, response, E_in, transition, E_out, precision, reverse):
    """Outputs, and the state that reads out in each chunk, of `(features, batch, chunks, T)`."""
    features, batch, chunks, T = u.shape
    N = transition.shape[1]
    y, states = torch.empty_like(u), u.new_empty((features, batch, chunks, N))
    options = launch_options(precision, batch, T, N // 2)
    grid = (features, triton.cdiv(batch, options["TILE_BATCH"]))
    weights = [w.contiguous() for w in (response, E_in, transition, E_out)]
    with torch.cuda.device_of(u):
        _chunk_kernel[grid](
            u,
            *weights,
            y,
            states,
            chunks,
            batch,
            T,
            N // 2,
            REVERSE=reverse,
            ROUND=INTERPRETED and precision == "tf32",
            **options,
        )
    return y, states


def _cut(x, T):
    """`(batch, length, features)` to contiguous `(features, batch, chunks, T)`, zeros added."""
    x = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[1] % T))
    batch, length, features = x.shape
    return x.reshape(batch, length // T, T, features).permute(3, 0, 1, 2).contiguous()


def _glue(y, length):
    """Undoes `_cut`."""
    return y.flatten(2).permute(1, 2, 0)[:, :length]


class ChunkPass(torch.autograd.Function):
    """`chunk_pass` with its gradient: the same kernel, backwards, on transposed matrices."""

    @staticmethod
    def forward(ctx, x, response, E_in, transition, E_out, precision):
        u = _cut(x, response.shape[1])
        y, states = _run(u, response, E_in, transition, E_out, precision, False)
        ctx.save_for_backward(x, response, E_in, transition, E_out, states)
        ctx.precision = precision
        return _glue(y, x.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, response, E_in, transition, E_out, states = ctx.saved_tensors
        T, modes = response.shape[1], transition.shape[1] // 2
        u, dy = _cut(x, T), _cut(dy, T)
        conjugate = torch.cat([transition[:, :modes], -transition[:, modes:]], dim=-1)
        # `later` is the adjoint of the state after each chunk.
        transposed = response.mT, E_out.mT, conjugate, E_in.mT
        du, later = _run(dy, *transposed, ctx.precision, True)
        einsum = exact_einsum if ctx.precision == "float32" else torch.einsum
        d_response = einsum("hbmi,hbmj->hij", u, dy)
        d_E_in = einsum("hbmi,hbmn->hin", u, later)
        d_E_out = einsum("hbmn,hbmi->hni", states, dy)
        (re, im), (d_re, d_im) = states.split(modes, -1), later.split(modes, -1)
        d_transition = torch.cat([re * d_re + im * d_im, re * d_im - im * d_re], dim=-1)
        dx = _glue(du, x.shape[1])
        return dx, d_response, d_E_in, d_transition.sum((1, 2)), d_E_out, None
