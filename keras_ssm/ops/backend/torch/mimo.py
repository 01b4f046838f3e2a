"""A diagonal system of many inputs and outputs on PyTorch: one function with its own gradient."""

import torch

from keras_ssm.ops.backend.torch.products import project, sum_of_outer_products
from keras_ssm.ops.backend.torch.scan import scan_in_place
from keras_ssm.ops.backend.torch.tensors import (
    as_complex,
    as_pairs,
    by_autograd,
    in_halves,
    in_pairs,
    needs_autograd,
)

# Rows whose products are summed at a time: new memory costs more than the products.
ROWS = 4096


def mimo_outputs(u, dA, dB, C, D, initial, portable):
    """Outputs and last state of x_t = dA x_(t-1) + dB u_t, y_t = Re(C x_t) + D u_t.

    A second direction runs from the last step to the first, from zero.

    Args:
        u: tensor `(batch, length, features)`.
        dA: tensor `(2 modes,)`. Real parts, then imaginary parts, here and below.
        dB: tensor `(features, 2 modes)`.
        C: tensor `(directions, features, 2 modes)`. Rows that states are multiplied by as real
            vectors: real parts and imaginary parts with the sign changed.
        D: tensor `(features,)`.
        initial: tensor `(batch, 2 modes)`.
        portable: function of these tensors with the same results, for gradients of gradients.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, 2 modes)`.
    """
    return _Mimo.apply(portable, u, dA, dB, C, D, initial)


class _Mimo(torch.autograd.Function):
    """`mimo`, whose states lie in memory as complex numbers do."""

    @staticmethod
    def forward(ctx, portable, u, *matrices):
        ctx.portable = portable
        u = u.contiguous()
        a, dB, C, D, start = _in_pairs(*matrices)
        driven = project(u, dB)
        y, states_of_direction = None, []
        for i, rows in enumerate(C):
            reverse = i == 1
            states = as_complex(driven.clone() if i + 1 < len(C) else driven)
            scan_in_place(a, states, torch.zeros_like(start) if reverse else start, reverse)
            states_of_direction.append(as_pairs(states))
            read = project(states_of_direction[-1], rows.mT)
            y = read if y is None else y.add_(read)
        y.addcmul_(u, D)
        ctx.save_for_backward(u, *matrices, *states_of_direction)
        return y, in_halves(states_of_direction[0][:, -1])

    @staticmethod
    def backward(ctx, d_y, d_last):
        arguments, states_of_direction = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
        if needs_autograd(d_y, d_last):
            return None, *by_autograd(ctx.portable, arguments, (d_y, d_last))
        u, *matrices = arguments
        a, dB, C, D, start = _in_pairs(*matrices)
        d_y, adjoint = d_y.contiguous(), a.conj().resolve_conj()
        d_driven, d_a, d_start, d_C = None, 0.0, None, torch.empty_like(C)
        for i, (rows, states) in enumerate(zip(C, states_of_direction, strict=True)):
            reverse = i == 1
            d_C[i] = sum_of_outer_products(d_y, states)
            d_states = project(d_y, rows)
            if not reverse:
                d_states[:, -1] += in_pairs(d_last)
            added, states = as_complex(d_states), as_complex(states)
            first = added[:, 0]
            scan_in_place(adjoint, added, torch.zeros_like(first), not reverse)
            d_a = d_a + _sum_over_steps(states, added, reverse)
            if not reverse:
                d_a, d_start = d_a + (start.conj() * first).sum(0), adjoint[0] * first
            d_driven = d_states if d_driven is None else d_driven.add_(d_states)
        d_u = project(d_driven, dB.mT).addcmul_(d_y, D) if ctx.needs_input_grad[1] else None
        d_dB, d_D = sum_of_outer_products(u, d_driven), _sum_of_products(u, d_y)
        d_a, d_start = in_halves(as_pairs(d_a)), in_halves(as_pairs(d_start))
        return None, d_u, d_a, in_halves(d_dB), in_halves(d_C), d_D, d_start


def _in_pairs(dA, dB, C, D, initial):
    """dA `(1, 1, modes)` and initial as complex numbers, dB and C in pairs, and D."""
    a, start = as_complex(in_pairs(dA))[None, None], as_complex(in_pairs(initial))
    return a, in_pairs(dB), in_pairs(C), D, start


def _sum_over_steps(states, added, reverse):
    """The gradient of dA: conj of the state before a step, times the adjoint of the step."""
    previous, current = slice(None, -1), slice(1, None)
    if reverse:
        previous, current = current, previous
    return _sum_of_products(states[:, previous].conj(), added[:, current])


def _sum_of_products(a, b):
    """Products summed over batch and steps, in memory that serves some rows at a time."""
    steps, size = a.shape[1:]
    rows, total = max(1, ROWS // max(1, steps)), a.new_zeros(size)
    memory = a.new_empty(min(rows, len(a)) * min(steps, ROWS) * size)
    for x, y in zip(a.split(rows), b.split(rows), strict=True):
        for p, q in zip(x.split(ROWS, dim=1), y.split(ROWS, dim=1), strict=True):
            total += torch.mul(p, q, out=memory[: p.numel()].view(p.shape)).sum((0, 1))
    return total
