"""Layer norm and RMS norm as Triton kernels, of rows or of sums of two, which keep the sum alone.

    s = x + y        n = (s - mean) / sqrt(var + epsilon)        out = gamma n + beta

Without a beta the norm is that of the mean square. The gradient computes n anew.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton.gates import in_rows
from keras_ssm.ops.backend.torch.triton.walk import total_of

# Numbers of a program's rows, and programs whose sums over rows are added up.
TOGETHER, PROGRAMS = 2048, 1024

# Rows with larger numbers are divided by the largest one before they are squared.
LARGEST_SQUARED = tl.constexpr(1e12)


@triton.jit
def _larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def _row_at(x, r, h, step, inside):
    at = x + r.to(tl.int64)[:, None] * step + h[None, :]
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _normed(s, inside, features, epsilon, CENTRED: tl.constexpr):
    """n, and what a gradient of n is multiplied by, `(rows, 1)`."""
    scale = tl.reduce(tl.abs(s), 1, _larger)[:, None]
    small = scale < LARGEST_SQUARED
    scale = tl.where(small, 1.0, scale)
    s = s / scale
    # Equal numbers would give 0 / 0 without anything to add. This is far below their rounding.
    added = epsilon / scale / scale
    added = tl.where(small | (added > 1e-24), added, 1e-24)
    if CENTRED:
        s = tl.where(inside, s - total_of(s, 1)[:, None] / features, 0.0)
    power = 1.0 / tl.sqrt(total_of(s * s, 1)[:, None] / features + added)
    # Rows beyond the last are zero, and 1 / 0 without an epsilon.
    return tl.where(inside, s * power, 0.0), power / scale


@triton.jit(do_not_specialize=["rows"])
def outputs(
    x,
    y,
    gamma,
    beta,
    total,
    out,
    rows,
    features,
    x_step,
    y_step,
    epsilon,
    R: tl.constexpr,
    N: tl.constexpr,
    ADDED: tl.constexpr,
    CENTRED: tl.constexpr,
):
    r = tl.program_id(0) * R + tl.arange(0, R)
    h = tl.arange(0, N)
    inside = (r < rows)[:, None] & (h < features)[None, :]
    at = r.to(tl.int64)[:, None] * features + h[None, :]
    s = _row_at(x, r, h, x_step, inside)
    if ADDED:
        s += _row_at(y, r, h, y_step, inside)
        s = s.to(total.dtype.element_ty)
        tl.store(total + at, s, mask=inside)
        s = s.to(tl.float32)
    n, _ = _normed(s, inside, features, epsilon, CENTRED)
    n *= tl.load(gamma + h, mask=h < features, other=0.0)[None, :]
    if CENTRED:
        n += tl.load(beta + h, mask=h < features, other=0.0)[None, :]
    tl.store(out + at, n.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "S"])
def slopes(
    s,
    gamma,
    upstream,
    d_total,
    ds,
    sums,
    rows,
    features,
    s_step,
    upstream_step,
    total_step,
    epsilon,
    S,
    R: tl.constexpr,
    N: tl.constexpr,
    ADDED: tl.constexpr,
    CENTRED: tl.constexpr,
):
    """The gradient of the sum, to which its own is ADDED, and sums for those of gamma and beta."""
    h = tl.arange(0, N)
    weight = tl.load(gamma + h, mask=h < features, other=0.0)[None, :]
    d_gamma = tl.full([R, N], 0.0, tl.float32)
    d_beta = d_gamma
    for k in range(S):
        r = (tl.program_id(0) * S + k) * R + tl.arange(0, R)
        inside = (r < rows)[:, None] & (h < features)[None, :]
        n, power = _normed(_row_at(s, r, h, s_step, inside), inside, features, epsilon, CENTRED)
        slope = _row_at(upstream, r, h, upstream_step, inside)
        d_gamma += slope * n
        d_beta += slope
        slope *= weight
        along = n * total_of(slope * n, 1)[:, None]
        if CENTRED:
            along += total_of(slope, 1)[:, None]
        slope = power * (slope - along / features)
        if ADDED:
            slope += _row_at(d_total, r, h, total_step, inside)
        at = ds + r.to(tl.int64)[:, None] * features + h[None, :]
        tl.store(at, slope.to(ds.dtype.element_ty), mask=inside)
    at = sums + tl.program_id(0) * 2 * features + h
    tl.store(at, total_of(d_gamma, 0), mask=h < features)
    tl.store(at + features, total_of(d_beta, 0), mask=h < features)


class Norm(torch.autograd.Function):
    """`apply(plain, epsilon, dtype, x, y, gamma, beta)`: x + y in the dtype of x, and its norm.

    Without a y there is the norm of x alone. `plain` is a function of a sum, gamma and beta with
    the norm as its result, for gradients of gradients.
    """

    @staticmethod
    def forward(ctx, plain, epsilon, dtype, x, y, gamma, beta):
        ctx.settings = plain, epsilon
        ctx.like = None if y is None else y.dtype
        ctx.set_materialize_grads(False)
        total = x if y is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        (read, x_step), (added, y_step) = in_rows(x), in_rows(x if y is None else y)
        tile = _Tile(x, beta)
        arguments = read, added, gamma, gamma if beta is None else beta, total, out
        steps = x_step, y_step, epsilon
        tile.launch(outputs, tile.count, arguments, steps, ADDED=y is not None)
        ctx.save_for_backward(total, gamma, beta)
        return out if y is None else (total, out)

    @staticmethod
    def backward(ctx, *upstream):
        (plain, epsilon), (total, gamma, beta) = ctx.settings, ctx.saved_tensors
        d_total, d_out = upstream if len(upstream) == 2 else (None, *upstream)
        if d_out is None:
            return None, None, None, *_for_both(ctx.like, d_total), None, None
        if needs_autograd(d_out) or (d_total is not None and needs_autograd(d_total)):
            ds, *weights = by_autograd(plain, (total, gamma, beta), d_out)
            ds = ds if d_total is None else ds + d_total
            return None, None, None, *_for_both(ctx.like, ds), *weights
        ds = torch.empty(total.shape, dtype=total.dtype, device=total.device)
        given = total, d_out, d_out if d_total is None else d_total
        (read, d_out, added), steps = zip(*map(in_rows, given), strict=True)
        tile = _Tile(total, beta)
        programs = min(tile.count, PROGRAMS)
        S = -(-tile.count // programs)
        sums = gamma.new_empty((programs, 2, total.shape[-1]))
        arguments = (read, gamma, d_out, added, ds, sums), (*steps, epsilon, S)
        tile.launch(slopes, programs, *arguments, ADDED=d_total is not None)
        d_gamma, d_beta = sums.sum(0)
        return None, None, None, *_for_both(ctx.like, ds), d_gamma, None if beta is None else d_beta


def _for_both(like, ds):
    """The gradients of x and of y, of which there may be none."""
    return ds, None if like is None or ds is None else ds.to(like)


class _Tile:
    """Rows that a program takes together."""

    def __init__(self, x, beta):
        features = x.shape[-1]
        rows, N = x.numel() // features, padded(features, 1)
        R = max(1, min(TOGETHER // N, padded(rows, 1)))
        self.count = -(-rows // R)
        self._sizes = rows, features
        self._options = {"R": R, "N": N, "CENTRED": beta is not None}
        self._options["num_warps"] = 4 if R * N <= TOGETHER else 8

    def launch(self, kernel, programs, tensors, numbers, ADDED):
        with torch.cuda.device_of(tensors[0]):
            kernel[(programs,)](*tensors, *self._sizes, *numbers, ADDED=ADDED, **self._options)
