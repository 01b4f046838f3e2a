"""A diagonal system of many inputs and outputs on PyTorch: one function with its own gradient."""

import torch

from keras_ssm.ops.backend.torch_autograd import by_autograd
from keras_ssm.ops.backend.torch_pairs import as_complex, as_pairs, in_halves, in_pairs
from keras_ssm.ops.backend.torch_products import project, sum_of_outer_products
from keras_ssm.ops.backend.torch_scan import scan_in_place

# Rows whose products are summed at a time: new memory costs more than the products.
ROWS = 4096


def mimo(u, dA, dB, C, D, initial, portable):
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

    def plain(u, dA, dB, C, D, initial):
        dA, dB, C, initial = (in_halves(x) for x in (dA, dB, C, initial))
        y, last = portable(u, dA, dB, C, D, initial)
        return y, in_pairs(last)

    dA, dB, C, initial = (in_pairs(x) for x in (dA, dB, C, initial))
    y, last = _Mimo.apply(plain, u, dA, dB, C, D, initial)
    return y, in_halves(last)


class _Mimo(torch.autograd.Function):
    """`mimo` where states lie in memory as complex numbers do."""

    @staticmethod
    def forward(ctx, plain, u, dA, dB, C, D, initial):
        ctx.plain = plain
        u = u.contiguous()
        driven = project(u, dB)
        y, kept = None, []
        for i, rows in enumerate(C):
            reverse = i == 1
            states = as_complex(driven.clone() if i + 1 < len(C) else driven)
            start = torch.zeros_like(initial) if reverse else initial
            scan_in_place(as_complex(dA)[None, None], states, as_complex(start), reverse)
            kept.append(as_pairs(states))
            read = project(kept[-1], rows.mT)
            y = read if y is None else y.add_(read)
        y.addcmul_(u, D)
        ctx.save_for_backward(u, dA, dB, C, D, initial, *kept)
        return y, kept[0][:, -1].clone()

    @staticmethod
    def backward(ctx, d_y, d_last):
        arguments, kept = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
        if torch.is_grad_enabled():
            return None, *by_autograd(ctx.plain, arguments, (d_y, d_last))
        u, dA, dB, C, D, initial = arguments
        d_y = d_y.contiguous()
        adjoint = as_complex(dA).conj().resolve_conj()
        d_driven, d_dA, d_initial, d_C = None, 0.0, None, torch.empty_like(C)
        for i, (rows, states) in enumerate(zip(C, kept, strict=True)):
            reverse = i == 1
            d_C[i] = sum_of_outer_products(d_y, states)
            d_states = project(d_y, rows)
            if not reverse:
                d_states[:, -1] += d_last
            added, states = as_complex(d_states), as_complex(states)
            zero = torch.zeros_like(added[:, 0])
            scan_in_place(adjoint[None, None], added, zero, not reverse)
            d_dA += _sum_over_steps(states, added, reverse)
            if not reverse:
                d_dA += (as_complex(initial).conj() * added[:, 0]).sum(0)
                d_initial = as_pairs(adjoint * added[:, 0])
            d_driven = d_states if d_driven is None else d_driven.add_(d_states)
        d_u = project(d_driven, dB.mT).addcmul_(d_y, D) if ctx.needs_input_grad[1] else None
        d_dB, d_D = sum_of_outer_products(u, d_driven), _sum_of_products(u, d_y)
        return None, d_u, as_pairs(d_dA), d_dB, d_C, d_D, d_initial


def _sum_over_steps(states, added, reverse):
    """The gradient of dA: conj of the state before a step, times the adjoint of the step."""
    before, here = slice(None, -1), slice(1, None)
    if reverse:
        before, here = here, before
    pairs = zip(states[:, before], added[:, here], strict=True)
    return sum(_sum_of_products(x.conj(), d) for x, d in pairs)


def _sum_of_products(a, b):
    """Products summed over all axes but the last."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    product, total = torch.empty_like(a[:ROWS]), a.new_zeros(a.shape[-1])
    for x, y in zip(a.split(ROWS), b.split(ROWS), strict=True):
        total += torch.mul(x, y, out=product[: len(x)]).sum(0)
    return total
