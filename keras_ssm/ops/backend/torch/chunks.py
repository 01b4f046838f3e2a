"""The chunked evaluation on PyTorch: one function with its own gradient, in few buffers.

Left to autograd, most of the time goes into new memory and copies. Here a block of features at
a time is transposed, computed and written back, in buffers that serve all blocks; the gradient
computes a block anew, so that nothing but the arguments is kept for it.
"""

import torch

from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch.dense_scan import dense_scan_in_place
from keras_ssm.ops.backend.torch.precision import exact
from keras_ssm.ops.backend.torch.scan import scan_in_place
from keras_ssm.ops.backend.torch.tensors import (
    as_complex,
    as_pairs,
    by_autograd,
    in_halves,
    in_pairs,
    needs_autograd,
)
from keras_ssm.ops.backend.torch.workspace import Workspace
from keras_ssm.ops.chunk_matrices import ChunkMatrices

# The axis of the states in each matrix, and in a state.
STATE_AXES = ChunkMatrices(None, 1, E_in=2, E_out=1, later_E_in=2, later_E_out=1)
STATE_AXIS = 2


def chunk_outputs(u, T, matrices, initial, portable):
    """Outputs and last state of a sequence in whole chunks, of one or two directions.

    Args:
        u: tensor `(batch, length, features)`.
        T: int. Steps in a chunk; the last one is filled up with zeros.
        matrices: `ChunkMatrices`.
        initial: tensor `(features, batch, states)` or `None` (zero).
        portable: function `(u, matrices, initial)` with the same results, for gradients of
            gradients.

    Returns:
        Tuple `(y, last)`: `(batch, length, channels * features)` and
        `(features, batch, states)`.
    """
    diagonal = matrices.transition.ndim == 2

    def change(layout, x, axis):
        return layout(x, axis) if diagonal and not (x is None or axis is None) else x

    def change_all(layout, tensors):
        axes = *STATE_AXES, STATE_AXIS
        return [change(layout, x, axis) for x, axis in zip(tensors, axes, strict=True)]

    def plain(u, *tensors):
        *matrices, initial = change_all(in_halves, tensors)
        y, last = portable(u, ChunkMatrices(*matrices), initial)
        return y, change(in_pairs, last, STATE_AXIS)

    y, last = _ChunkOutputs.apply((T, plain), u, *change_all(in_pairs, (*matrices, initial)))
    return y, change(in_halves, last, STATE_AXIS)


class _ChunkOutputs(torch.autograd.Function):
    """`chunk_outputs` where states of diagonal systems lie in memory as complex numbers do."""

    @staticmethod
    def forward(ctx, settings, u, *tensors):
        ctx.settings = settings
        ctx.save_for_backward(u, *tensors)
        T, _ = settings
        u, work = u.contiguous(), Workspace(u, T)
        matrices, initial = ChunkMatrices(*tensors[:-1]), tensors[-1]
        y = work.sequence(matrices.toeplitz.shape[2] // T)
        last = u.new_empty((u.shape[2], u.shape[0], matrices.E_in.shape[2]))
        for block in work.blocks(_launches_little(matrices.transition)):
            m, start = _part(matrices, block), _slice(initial, block)
            x = work.read("x", u, block)
            out = work.product("y", x, m.toeplitz)
            before, last[block] = _pass_states(work, "x", m.transition, x, m.E_in, start)
            out += work.product("read", before, m.E_out)
            if m.later_E_in is not None:
                operands = m.transition, x, m.later_E_in, None
                before, _ = _pass_states(work, "x", *operands, reverse=True)
                out += work.product("read", before, m.later_E_out)
            work.write(y, out, block)
        return work.finished(y), last

    @staticmethod
    def backward(ctx, d_y, d_last):
        T, plain = ctx.settings
        u, *tensors = ctx.saved_tensors
        if needs_autograd(d_y, d_last):
            return None, *by_autograd(plain, ctx.saved_tensors, (d_y, d_last))
        u, d_y, work = u.contiguous(), d_y.contiguous(), Workspace(u, T)
        d_u = work.sequence(1) if ctx.needs_input_grad[1] else None
        gradients = [None if t is None else torch.empty_like(t) for t in tensors]
        matrices, initial = ChunkMatrices(*tensors[:-1]), tensors[-1]
        slopes, d_initial = ChunkMatrices(*gradients[:-1]), gradients[-1]
        for block in work.blocks(_launches_little(matrices.transition)):
            m, d, start = _part(matrices, block), _part(slopes, block), _slice(initial, block)
            x, dy = work.read("x", u, block), work.read("dy", d_y, block)
            dx = None if d_u is None else work.product("y", dy, m.toeplitz.mT)
            torch.bmm(x.mT, dy, out=d.toeplitz)
            operands = m.transition, m.E_in, m.E_out, start, d_last[block]
            *d_matrices, d_start = _direction(work, x, dy, dx, *operands)
            for target, value in zip((d.transition, d.E_in, d.E_out), d_matrices, strict=True):
                target.copy_(value)
            if start is not None:
                d_initial[block] = d_start
            if m.later_E_in is not None:
                operands = m.transition, m.later_E_in, m.later_E_out, None, None
                d_transition, d_E_in, d_E_out, _ = _direction(
                    work, x, dy, dx, *operands, reverse=True
                )
                d.transition.add_(d_transition)
                d.later_E_in.copy_(d_E_in)
                d.later_E_out.copy_(d_E_out)
            if d_u is not None:
                work.write(d_u, dx, block)
        return None, None if d_u is None else work.finished(d_u), *gradients


def _launches_little(transition):
    """Whether a kernel passes the states on, and not a call for each chunk."""
    return transition.ndim == 3 and torch_bank.has_dense_scan(transition)


def _part(matrices, block):
    """Views of the matrices of some features."""
    return ChunkMatrices(*(_slice(m, block) for m in matrices))


def _slice(x, block):
    return None if x is None else x[block]


def _direction(work, x, dy, dx, transition, E_in, E_out, initial, d_last, reverse=False):
    """Gradients of transition, E_in, E_out and initial state; adds to the one of x."""
    before, _ = _pass_states(work, "x", transition, x, E_in, initial, reverse)
    adjoint = _adjoint(transition)
    d_added, d_initial = _pass_states(work, "dy", adjoint, dy, E_out.mT, d_last, not reverse)
    if dx is not None:
        dx += work.product("read", d_added, E_in.mT)
    d_E_in, d_E_out = torch.bmm(x.mT, d_added), torch.bmm(before.mT, dy)
    return _gradient_of_transition(transition, before, d_added), d_E_in, d_E_out, d_initial


def _pass_states(work, name, transition, x, E_in, initial, reverse=False):
    """`ops.state_passing` of x E_in: the states before the chunks, in rows, and the last one."""
    added = work.product("added", x, E_in)
    before = work.rows(f"before {name}", added)
    by_chunk = (added.shape[0], work.batch, -1, added.shape[2])
    inputs, states = added.view(by_chunk), before.view(by_chunk)
    if transition.ndim == 2:
        a, inputs, states = (as_complex(t) for t in (transition[:, None, None], inputs, states))
        initial = 0.0 if initial is None else as_complex(initial)
        return before, as_pairs(_states_before(a, inputs, states, initial, reverse))
    last = torch_bank.dense_states(transition.mT, inputs, states, initial, reverse)
    if last is not None:
        return before, last
    initial = 0.0 if initial is None else initial
    return before, _states_before(transition.mT, inputs, states, initial, reverse)


def _states_before(a, inputs, states, initial, reverse):
    """Fills in the states before each of the inputs; returns the one after the last."""
    first, later, earlier = 0, slice(1, None), slice(None, -1)
    if reverse:
        first, later, earlier = -1, earlier, later
    states[:, :, later] = inputs[:, :, earlier]
    states[:, :, first] = initial
    end = -1 - first
    if a.is_complex():
        scan_in_place(a, states, torch.zeros_like(states[:, :, 0]), reverse)
        return torch.addcmul(inputs[:, :, end], a[:, 0], states[:, :, end])
    dense_scan_in_place(a, states, reverse)
    return inputs[:, :, end] + states[:, :, end] + exact(torch.bmm, states[:, :, end], a)


def _adjoint(transition):
    """The transition of the gradient, which runs the other way."""
    if transition.ndim == 3:
        return transition.mT
    return as_pairs(as_complex(transition).conj().resolve_conj())


def _gradient_of_transition(transition, before, d_added):
    """Overwrites `before` with the products that it sums."""
    if transition.ndim == 3:
        return exact(torch.bmm, d_added.mT, before)
    products = as_complex(before).conj_physical_().mul_(as_complex(d_added))
    return as_pairs(products.sum(dim=1))
