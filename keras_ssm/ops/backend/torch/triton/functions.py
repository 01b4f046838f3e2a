"""Outputs and last states of diagonal banks by Triton kernels, with their gradients.

A bank falls into planes, one for each direction, channel and group of modes, which are walked one
after another and added up. Both functions take the tensors of a bank one by one: log a
`(features, modes)`, C `(channels, features, modes)` and dB `(features, modes)`, each as real and
imaginary part, dB perhaps as two `None`.
"""

import torch

from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.triton.bank import Walk
from keras_ssm.ops.backend.walk_plan import MOST_MODES


class Outputs(torch.autograd.Function):
    """`apply(settings, u, *log a, *C, *dB, D, initial)`: outputs `(batch, length, outputs)`.

    D is `(channels, features)` and initial `(batch, features, 2 modes)`, or `None`. Settings are
    whether there are two directions, and a function of all tensors with the same result, for
    gradients of gradients.
    """

    @staticmethod
    def forward(ctx, settings, u, *tensors):
        ctx.settings = settings
        ctx.save_for_backward(u, *tensors)
        u, (*bank, D, initial) = u.contiguous(), map(_whole, tensors)
        directions, channels, y = _sizes(bank[2], u, settings[0])
        for group in _groups(bank[0].shape[1]):
            log_dA, C, dB = _slices(bank, group)
            walk = Walk(u, log_dA, channels)
            start_states = None if initial is None else initial[..., group.start :]
            for direction in range(directions):
                start, way, first = None, 1 - 2 * direction, direction == group.start == 0
                for c in range(channels):
                    row = [part[direction * channels + c] for part in C]
                    skip = D[c] if first and D is not None else None
                    matrices = walk.matrices(row, dB, skip, normal=initial is None)
                    if start is None:
                        start, _ = walk.starts(u, matrices, way, initial=start_states)
                    to = _channel(y, c, channels)
                    walk.outputs(u, to, start, matrices, way, direction, add=not first)
        return y

    @staticmethod
    def backward(ctx, dy):
        bidirectional, portable = ctx.settings
        u, *tensors = ctx.saved_tensors
        if needs_autograd(dy):
            return None, *by_autograd(portable, (u, *tensors), dy)
        u, dy, (*bank, D, initial) = u.contiguous(), dy.contiguous(), map(_whole, tensors)
        directions, channels, _ = _sizes(bank[2], None, bidirectional)
        du = torch.empty_like(u) if ctx.needs_input_grad[1] else None
        d_D, d_initial = (None if t is None else torch.zeros_like(t) for t in (D, initial))
        parts = []
        for group in _groups(bank[0].shape[1]):
            log_dA, C, dB = _slices(bank, group)
            slopes = [[torch.empty_like(p) for p in pair or ()] for pair in (log_dA, C, dB)]
            walk = Walk(u, log_dA, channels, "back")
            for at in range(directions * channels):
                direction, c = divmod(at, channels)
                first, way = direction == group.start == 0, 2 * direction - 1
                row = [part[at] for part in C]
                matrices = walk.matrices(row, dB, D[c] if first and D is not None else None, True)
                dy_channel, stays = _channel(dy, c, channels), initial is not None
                start, last = walk.starts(
                    dy_channel, matrices, way, direction, moment=True, ends=True, last=stays
                )
                add = group.start + at > 0
                sums = walk.slopes(u, dy_channel, du, start, matrices, way, direction, add)
                d_row = [part[at] for part in slopes[1]]
                skip = d_D[c] if first and D is not None else None
                walk.gather(sums, row, dB, slopes[0], d_row, slopes[2], skip, add=at > 0)
                if stays:
                    x = _numbers(initial, group)
                    d_x = _of_initial(walk, last, row, x, slopes[0], d_row)
                    real, imag = _halves(d_initial, group)
                    real += d_x.real
                    imag += d_x.imag
            parts.append([part for pair in slopes for part in pair])
        gradients = [torch.cat(p, -1) for p in zip(*parts, strict=True)]
        gradients += [None] * (6 - len(gradients))
        return None, du, *gradients, d_D, d_initial


def _of_initial(walk, last, C, initial, d_log_dA, d_C):
    """The gradient of the initial state; adds to those of log a and C.

    Its outputs are 2 Re(C a^(t + 1) x); the walk back ends with the sums of a^t dy and t a^t dy.
    """
    a = torch.exp(torch.complex(*walk.log_dA))
    lam, om = walk.numbers(last)
    lam, om = a * lam, a * (om + lam)
    C = torch.complex(*C)
    for target, value in ((d_C, initial * lam), (d_log_dA, C * initial * om)):
        total = 2.0 * value.sum(0)
        target[0] += total.real
        target[1] -= total.imag
    return (2.0 * C * lam).conj()


class LastState(torch.autograd.Function):
    """`apply(settings, u, *log a, *dB, initial)`: the state after each row's last step.

    Settings are the steps of each row, an integer tensor `(batch,)` or `None`, and a function as in
    `Outputs`. The state is `(batch, features, 2 modes)`.
    """

    @staticmethod
    def forward(ctx, settings, u, *tensors):
        ctx.settings = settings
        ctx.save_for_backward(u, *tensors)
        re, im, dB_re, dB_im, initial = map(_whole, tensors)
        (added,) = _sums((re, im), u.contiguous(), settings[0], moment=False)
        state = added if dB_re is None else torch.complex(dB_re, dB_im) * added
        if initial is not None:
            state = state + _power(re, im, _steps(u, settings[0])) * _numbers(initial)
        return torch.cat([state.real, state.imag], -1)

    @staticmethod
    def backward(ctx, d_state):
        lengths, portable = ctx.settings
        u, *tensors = ctx.saved_tensors
        if needs_autograd(d_state):
            return None, *by_autograd(portable, (u, *tensors), d_state)
        u, (re, im, dB_re, dB_im, initial) = u.contiguous(), map(_whole, tensors)
        upstream, n = _numbers(d_state), _steps(u, lengths)
        added, moment = _sums((re, im), u, lengths, moment=True)
        dB = torch.ones_like(re) + 0j if dB_re is None else torch.complex(dB_re, dB_im)
        grown, d_initial = dB * moment, None
        if initial is not None:
            power = _power(re, im, n)
            grown = grown + n * power * _numbers(initial)
            d_initial = power.conj() * upstream
            d_initial = torch.cat([d_initial.real, d_initial.imag], -1)
        d_log_dA, d_dB = (grown.conj() * upstream).sum(0), (added.conj() * upstream).sum(0)
        du = None
        if ctx.needs_input_grad[1]:
            du = torch.zeros_like(u)
            _free((re, im), upstream.conj() * dB, du, lengths)
        d_dB = (None, None) if dB_re is None else (d_dB.real, d_dB.imag)
        return None, du, d_log_dA.real, d_log_dA.imag, *d_dB, d_initial


def _sums(log_dA, u, lengths, moment):
    """Complex sums over t of a^(n - 1 - t) u[t], n the steps of a row; and times n - 1 - t."""
    sums = []
    for group in _groups(log_dA[0].shape[1]):
        way = "back" if moment else "forward"
        walk = Walk(u, [part[..., group].contiguous() for part in log_dA], way=way)
        matrices = walk.matrices(walk.log_dA, None, None, True)
        _, last = walk.starts(u, matrices, 1, lengths=lengths, moment=moment, ends=True, last=True)
        sums.append(walk.numbers(last))
    return [torch.cat(parts, -1) for parts in zip(*sums, strict=True)]


def _free(log_dA, state, y, lengths):
    """Adds Re(a^(n - 1 - t) x) to y, for the state x at the end of a row of n steps."""
    nothing = torch.zeros_like(y)
    for group in _groups(log_dA[0].shape[1]):
        walk = Walk(y, [part[..., group].contiguous() for part in log_dA])
        half = torch.full_like(walk.log_dA[0], 0.5)
        matrices = walk.matrices((half, torch.zeros_like(half)), None, None, False, first=0)
        x = state[..., group]
        start, _ = walk.starts(None, matrices, -1, initial=torch.cat([x.real, x.imag], -1))
        walk.outputs(nothing, y, start, matrices, -1, lengths=lengths, add=True)


def _whole(x):
    return None if x is None else x.contiguous()


def _sizes(C, u, bidirectional):
    """Directions, channels, and memory for the outputs."""
    directions = 2 if bidirectional else 1
    channels = C.shape[0] // directions
    if u is None:
        return directions, channels, None
    return directions, channels, u.new_empty((*u.shape[:2], channels * u.shape[2]))


def _groups(modes):
    """Slices of the modes."""
    return [slice(first, min(first + MOST_MODES, modes)) for first in range(0, modes, MOST_MODES)]


def _slices(bank, group):
    """log a, C and dB of some modes, as pairs of contiguous tensors; no dB is `None`."""
    re, im, C_re, C_im, dB_re, dB_im = bank
    pairs = (re, im), (C_re, C_im), (dB_re, dB_im)
    return [None if p[0] is None else [t[..., group].contiguous() for t in p] for p in pairs]


def _channel(y, c, channels):
    features = y.shape[2] // channels
    return y[..., c * features : (c + 1) * features]


def _halves(x, group):
    """Views of the real and the imaginary parts of some modes."""
    return [part[..., group] for part in x.chunk(2, dim=-1)]


def _numbers(x, group=slice(None)):
    return torch.complex(*_halves(x, group))


def _steps(u, lengths):
    """The steps of each row, that broadcast against states."""
    if lengths is None:
        return u.shape[1]
    return lengths.to(torch.float64)[:, None, None]


def _power(re, im, steps):
    """a^steps; in double precision, so that the angle is not rounded."""
    angle, size = im.double() * steps, torch.exp(re.double() * steps)
    return torch.complex(size * torch.cos(angle), size * torch.sin(angle)).to(torch.complex64)
