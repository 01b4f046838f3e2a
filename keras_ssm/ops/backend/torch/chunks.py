"""The chunked evaluation on PyTorch: one function with its own gradient, in few buffers.

Left to autograd, most of the time goes into new memory and copies. Here a block of features at
a time is transposed, computed and written back, in buffers that serve all blocks; the gradient
computes a block anew, so that nothing but the arguments is kept for it.
"""

import torch

from keras_ssm.ops.backend.torch.dense_scan import dense_scan_in_place
from keras_ssm.ops.backend.torch.precision import exact
from keras_ssm.ops.backend.torch.scan import scan_in_place
from keras_ssm.ops.backend.torch.tensors import (
    as_complex,
    as_pairs,
    by_autograd,
    in_halves,
    in_pairs,
)
from keras_ssm.ops.backend.torch.workspace import Workspace


def chunk_outputs(u, T, matrices, initial, portable):
    """Outputs and last state of a sequence in whole chunks, of one or two directions.

    Args:
        u: tensor `(batch, length, features)`.
        T: int. Steps in a chunk; the last one is filled up with zeros.
        matrices: list of tensors, as `ops.chunked.chunk_pass` takes them.
        initial: empty list, or `[tensor (features, batch, states)]`.
        portable: function `(u, *matrices, *initial)` with the same results, for gradients of
            gradients.

    Returns:
        Tuple `(y, last)`: `(batch, length, channels * features)` and
        `(features, batch, states)`.
    """
    diagonal = matrices[1].ndim == 2
    state_axes = [None, 1, 2, 1] + ([2] if initial else [2, 1])

    def change(layout, tensors, axes):
        pairs = zip(tensors, axes, strict=False)
        return [t if axis is None or not diagonal else layout(t, axis) for t, axis in pairs]

    def plain(u, *tensors):
        y, last = portable(u, *change(in_halves, tensors, state_axes))
        return y, *change(in_pairs, [last], [2])

    tensors = change(in_pairs, [*matrices, *initial], state_axes)
    y, last = _ChunkOutputs.apply((T, bool(initial), plain), u, *tensors)
    return y, *change(in_halves, [last], [2])


class _ChunkOutputs(torch.autograd.Function):
    """`chunk_outputs` where states of diagonal systems lie in memory as complex numbers do."""

    @staticmethod
    def forward(ctx, settings, u, *tensors):
        ctx.settings = settings
        ctx.save_for_backward(u, *tensors)
        T, has_initial, _ = settings
        u, work = u.contiguous(), Workspace(u, T)
        y = work.sequence(tensors[0].shape[2] // T)
        last = u.new_empty((u.shape[2], u.shape[0], tensors[2].shape[2]))
        for block in work.blocks():
            response, transition, E_in, E_out, *others = (m[block] for m in tensors)
            initial = others.pop() if has_initial else None
            x = work.read("x", u, block)
            out = work.product("y", x, response)
            before, last[block] = _carry(work, "x", transition, x, E_in, initial)
            out += work.product("read", before, E_out)
            if others:
                E_in, E_out = others
                before, _ = _carry(work, "x", transition, x, E_in, None, reverse=True)
                out += work.product("read", before, E_out)
            work.write(y, out, block)
        return work.finished(y), last

    @staticmethod
    def backward(ctx, d_y, d_last):
        T, has_initial, plain = ctx.settings
        u, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *by_autograd(plain, ctx.saved_tensors, (d_y, d_last))
        u, d_y, work = u.contiguous(), d_y.contiguous(), Workspace(u, T)
        d_u = work.sequence(1) if ctx.needs_input_grad[1] else None
        gradients = [torch.empty_like(m) for m in tensors]
        for block in work.blocks():
            response, transition, E_in, E_out, *others = (m[block] for m in tensors)
            d_response, d_transition, d_E_in, d_E_out, *d_others = (g[block] for g in gradients)
            x, dy = work.read("x", u, block), work.read("dy", d_y, block)
            dx = None if d_u is None else work.product("y", dy, response.mT)
            torch.bmm(x.mT, dy, out=d_response)
            initial = others.pop() if has_initial else None
            found = _direction(work, x, dy, dx, transition, E_in, E_out, initial, d_last[block])
            for target, value in zip((d_transition, d_E_in, d_E_out), found, strict=False):
                target.copy_(value)
            if has_initial:
                d_others[0].copy_(found[3])
            if others:
                found = _direction(work, x, dy, dx, transition, *others, None, None, reverse=True)
                d_transition += found[0]
                for target, value in zip(d_others, found[1:3], strict=True):
                    target.copy_(value)
            if d_u is not None:
                work.write(d_u, dx, block)
        return None, None if d_u is None else work.finished(d_u), *gradients


def _direction(work, x, dy, dx, transition, E_in, E_out, initial, d_last, reverse=False):
    """Gradients of transition, E_in, E_out and initial state; adds to the one of x."""
    before, _ = _carry(work, "x", transition, x, E_in, initial, reverse)
    adjoint = _adjoint(transition)
    d_added, d_initial = _carry(work, "dy", adjoint, dy, E_out.mT, d_last, not reverse)
    if dx is not None:
        dx += work.product("read", d_added, E_in.mT)
    d_E_in, d_E_out = torch.bmm(x.mT, d_added), torch.bmm(before.mT, dy)
    return _gradient_of_transition(transition, before, d_added), d_E_in, d_E_out, d_initial


def _carry(work, name, transition, x, E_in, initial, reverse=False):
    """`ops.carry` of x E_in: states before the chunks, as rows of a matrix, and the last one."""
    added = work.product("added", x, E_in)
    before = work.rows(f"before {name}", added)
    by_chunk = (added.shape[0], work.batch, -1, added.shape[2])
    inputs, states = added.view(by_chunk), before.view(by_chunk)
    if transition.ndim == 2:
        a, inputs, states = (as_complex(t) for t in (transition[:, None, None], inputs, states))
        initial = 0.0 if initial is None else as_complex(initial)
        return before, as_pairs(_states_before(a, inputs, states, initial, reverse))
    initial = 0.0 if initial is None else initial
    return before, _states_before(transition.mT, inputs, states, initial, reverse)


def _states_before(a, inputs, states, initial, reverse):
    """Fills in the states before each of the inputs; returns the one after the last."""
    first, others, sooner = 0, slice(1, None), slice(None, -1)
    if reverse:
        first, others, sooner = -1, sooner, others
    states[:, :, others] = inputs[:, :, sooner]
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
