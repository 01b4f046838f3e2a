"""The scan of `ops.scan` on PyTorch, in place and in complex arithmetic."""

import itertools

import torch

from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd


def scan_in_blocks(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan` for a transition that is the same in every step.

    About sqrt(steps) blocks are scanned side by side, each from zero; what the states before
    the blocks contribute is added afterwards.

    Args:
        dA: tensor `(..., 1, 2 modes)`.
        inputs: tensor `(..., steps, 2 modes)`.
        initial: tensor `(..., 2 modes)`.
        reverse: bool. Whether the recurrence runs from the last step to the first.
        portable: function `(dA, inputs, initial)` with the same result, for gradients of
            gradients.

    Returns:
        Tensor `(..., steps, 2 modes)`.
    """
    return _Scan.apply((reverse, portable), dA, inputs, initial)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings, dA, inputs, initial):
        states = _complex(inputs)
        scan_in_place(_complex(dA), states, _complex(initial), settings[0])
        ctx.settings = settings
        ctx.save_for_backward(dA, inputs, initial, states)
        return _real(states)

    @staticmethod
    def backward(ctx, upstream):
        reverse, portable = ctx.settings
        *tensors, states = ctx.saved_tensors
        if needs_autograd(upstream):
            return None, *by_autograd(portable, tensors, upstream)
        dA, initial = _complex(tensors[0]), _complex(tensors[2])
        d_inputs = _complex(upstream)
        scan_in_place(dA.conj().resolve_conj(), d_inputs, torch.zeros_like(initial), not reverse)
        first = d_inputs[..., -1 if reverse else 0, :]
        later, before = slice(1, None), slice(None, -1)
        if reverse:
            later, before = before, later
        d_dA = (states[..., before, :].conj() * d_inputs[..., later, :]).sum(-2)
        d_dA = (d_dA + initial.conj() * first)[..., None, :].sum_to_size(dA.shape)
        d_initial = dA[..., 0, :].conj() * first
        return None, _real(d_dA), _real(d_inputs), _real(d_initial)


def scan_in_complex(dA, inputs, initial, reverse):
    """The states of `scan_in_blocks`, without their gradient."""
    states = _complex(inputs)
    scan_in_place(_complex(dA), states, _complex(initial), reverse)
    return _real(states)


def _complex(x):
    return torch.complex(*x.chunk(2, dim=-1))


def _real(x):
    return torch.cat([x.real, x.imag], dim=-1)


def scan_in_place(a, x, state, reverse):
    """Replaces inputs by the states of the recurrence.

    Args:
        a: complex tensor `(..., 1, modes)`. The transition of every step.
        x: complex tensor `(..., steps, modes)`. Inputs, then states.
        state: complex tensor `(..., modes)`. State before the first step.
        reverse: bool. Whether the recurrence runs from the last step to the first.
    """
    steps = x.shape[-2]
    T = max(1, int(steps**0.5))
    blocks = steps // T
    whole, rest = x[..., : blocks * T, :].unflatten(-2, (blocks, T)), x[..., blocks * T :, :]
    if reverse:
        state = _one_by_one(a, rest, state, reverse)
    state = _blocks(a, whole, state, reverse)
    if not reverse:
        _one_by_one(a, rest, state, reverse)


def _blocks(a, x, state, reverse):
    """Replaces inputs `(..., blocks, T, modes)` by states; returns the last one."""
    samples = _in_order(x.unbind(-2), reverse)
    for previous, current in itertools.pairwise(samples):
        current.addcmul_(a, previous)
    powers = a.expand(*a.shape[:-2], x.shape[-2], -1).cumprod(-2)  # (..., T, modes)
    over_block = powers[..., -1, :]
    starts = torch.empty_like(samples[-1])
    ends = _in_order(samples[-1].unbind(-2), reverse)
    first, *others = _in_order(starts.unbind(-2), reverse)
    last = torch.empty_like(first)
    state = first.copy_(state)
    for end, target in zip(ends, [*others, last], strict=True):
        state = torch.addcmul(end, over_block, state, out=target)
    powers = powers.flip(-2) if reverse else powers
    x.addcmul_(powers[..., None, :, :], starts[..., None, :])
    return state


def _one_by_one(a, x, state, reverse):
    """Replaces inputs `(..., steps, modes)` by states; returns the last one."""
    for current in _in_order(x.unbind(-2), reverse):
        state = current.addcmul_(a[..., 0, :], state)
    return state


def _in_order(samples, reverse):
    return samples[::-1] if reverse else samples
