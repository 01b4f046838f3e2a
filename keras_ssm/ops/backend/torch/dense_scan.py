"""The recurrence of dense transitions on PyTorch, in place and in blocks side by side."""

import torch

from keras_ssm.ops.backend.torch.precision import exact

# Steps for each row of a batch, above which blocks side by side are faster; measured.
STEPS_FOR_BLOCKS = 16


def dense_scan_in_place(E, x, reverse):
    """Replaces inputs by the states of x_t = x_(t-1) (I + E) + s_t, from zero.

    Blocks of about sqrt(steps) are scanned side by side, each from zero: products of many rows
    are faster than many of a few. The states before the blocks go on through each of them.

    Args:
        E: tensor `(features, states, states)`. Transition of rows less the identity.
        x: tensor `(features, batch, steps, states)`. Inputs, then states.
        reverse: bool. Whether the recurrence runs from the last step to the first.
    """
    features, batch, steps, size = x.shape
    E = E.contiguous()
    doublings = int(steps**0.5).bit_length() - 1 if steps > STEPS_FOR_BLOCKS * batch else 0
    T = 2**doublings
    blocks = steps // T
    whole, rest = x[:, :, : blocks * T], x[:, :, blocks * T :]
    state = x.new_zeros((features, batch, size))
    if reverse:
        state = _one_by_one(E, _in_order(rest, reverse), state)
    if T == 1:
        state = _one_by_one(E, _in_order(whole, reverse), state)
    else:
        over_block = E
        for _ in range(doublings):
            over_block = 2.0 * over_block + exact(torch.bmm, over_block, over_block)
        samples = _in_order(whole.unflatten(2, (blocks, T)).transpose(2, 3), reverse)
        ends = _one_by_one(E, samples, x.new_zeros((features, batch, blocks, size)))
        starts = torch.empty_like(ends)
        for start, end in zip(_in_order(starts, reverse), _in_order(ends, reverse), strict=True):
            start.copy_(state)
            state = _advance(over_block, state).add_(end)
        for sample in samples:
            starts = _advance(E, starts)
            sample += starts
    if not reverse:
        _one_by_one(E, _in_order(rest, reverse), state)


def _one_by_one(E, samples, state):
    """Replaces inputs `(features, ..., states)` by states; returns the last one."""
    for sample in samples:
        # A copy of the state: a product of rows far apart in memory is slow.
        state = _advance(E, state).add_(sample)
        sample.copy_(state)
    return state


def _advance(E, x):
    """x (I + E) for x `(features, ..., states)`."""
    rows = x.flatten(1, -2)
    return exact(torch.bmm, rows, E).add_(rows).view(x.shape)


def _in_order(x, reverse):
    """The steps of x `(features, batch, steps, ..., states)`."""
    samples = x.unbind(2)
    return samples[::-1] if reverse else samples
