"""The selective scan on PyTorch: one function with its own gradient, some steps at a time.

Left to autograd, most of the time goes into new memory. Here some features and steps at a time are
computed in buffers that a CPU's caches hold. The gradient computes their states anew.
"""

import torch

from keras_ssm.ops.backend.torch.tensors import by_autograd

# Steps between stored states. And the numbers in the states of one step, for the features that are
# computed together. Both were measured.
STEPS = 32
TOGETHER = 2**13

# Smaller states are not worth the calls of every step: the portable form takes blocks of them.
FEWEST = 2**8


def selective_outputs(x, dt, A, B, C, D, initial, portable):
    """Outputs and last state of `ops.selective_scan`.

    Args:
        x, dt: tensors `(batch, length, features)`.
        A: tensor `(features, state_dim)`.
        B, C: tensors `(batch, length, state_dim)`.
        D: tensor `(features,)` or `None`.
        initial: tensor `(batch, features, state_dim)` or `None` (zero).
        portable: function of these tensors with the same results, for gradients of gradients.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, features, state_dim)`, or
        `None` where the portable form is faster.
    """
    mixed = any(z is not None and z.dtype != x.dtype for z in (dt, A, B, C, D, initial))
    if mixed or x.device.type != "cpu" or x.shape[0] * A.numel() < FEWEST:
        return None
    return _Selective.apply(portable, x, dt, A, B, C, D, initial)


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx, portable, x, dt, A, B, C, D, initial):
        ctx.portable = portable
        work, y = _Workspace(x, A), torch.empty_like(x, memory_format=torch.contiguous_format)
        starts = x.new_empty((len(work.segments), x.shape[0], *A.mT.shape))
        last = torch.empty_like(starts[0])
        driven = dt * x
        for block in work.blocks:
            state, transition = _beginning(initial, last, block), A[block].mT.contiguous()
            for start, steps in zip(starts, work.segments, strict=True):
                start[..., block] = state
                part = steps, slice(None), block
                given = _at(dt, part), _at(driven, part), transition, _at(B, part[:2])
                _, states = work.states(state, *given)
                state = states[-1].clone()
                _at(y, part).copy_(_over_states(_at(C, part[:2]), states[1:]))
            last[..., block] = state
        if D is not None:
            y.addcmul_(x, D)
        ctx.save_for_backward(x, dt, A, B, C, D, initial, starts)
        return y, last.mT.contiguous()

    @staticmethod
    def backward(ctx, d_y, d_last):
        *tensors, starts = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *by_autograd(ctx.portable, tensors, (d_y, d_last))
        x, dt, A, B, C, D, initial = tensors
        work, driven = _Workspace(x, A), dt * x
        d_x, d_dt = torch.empty_like(driven), torch.empty_like(driven)
        d_A, d_B, d_C = (torch.zeros_like(z) for z in (A, B, C))
        d_initial = d_last.mT.contiguous()
        for block in work.blocks:
            later, transition = d_initial[..., block].contiguous(), A[block].mT.contiguous()
            for start, steps in reversed([*zip(starts, work.segments, strict=True)]):
                part = steps, slice(None), block
                X, step, drive, dy = (_at(z, part) for z in (x, dt, driven, d_y))
                here_B, here_C = _at(B, part[:2]), _at(C, part[:2])
                gains, states = work.states(start[..., block], step, drive, transition, here_B)
                adjoints = work.adjoints(gains, later, dy, here_C)
                _at(d_C, part[:2]).add_(_over_features(states[1:], dy))
                _at(d_B, part[:2]).add_(_over_features(adjoints, drive))
                d_driven = _over_states(here_B, adjoints)
                _at(d_x, part).copy_(d_driven * step)
                through = gains.mul_(adjoints)
                later.copy_(through[0])
                through.mul_(states[:-1])  # the gradient of dt A
                slope = torch.mul(through, transition, out=adjoints).sum(2)
                _at(d_dt, part).copy_(slope.addcmul_(d_driven, X))
                d_A[block] += through.mul_(step[:, :, None]).sum((0, 1)).mT
            d_initial[..., block] = later
        d_D = None
        if D is not None:
            d_D = torch.mul(d_y, x, out=driven).sum((0, 1))
            d_x.addcmul_(d_y, D)
        d_initial = None if initial is None else d_initial.mT
        return None, d_x, d_dt, d_A, d_B, d_C, d_D, d_initial


class _Workspace:
    """Buffers `(steps, batch, state_dim, features)` that serve one part after another.

    Features lie beside each other in memory, so that operations run over long rows.
    """

    def __init__(self, x, A):
        batch, length, features = x.shape
        self.state_dim = A.shape[1]
        together = min(features, max(16, TOGETHER // (batch * self.state_dim)))
        self.blocks = [slice(i, min(i + together, features)) for i in range(0, features, together)]
        self.segments = [slice(i, min(i + STEPS, length)) for i in range(0, length, STEPS)]
        row = batch * self.state_dim * together
        steps = min(STEPS, length)
        sizes = {"gains": steps, "adjoints": steps, "states": steps + 1}
        self._memory = {name: x.new_empty(row * steps) for name, steps in sizes.items()}

    def _buffer(self, name, steps, batch, features):
        shape = (steps, batch, self.state_dim, features)
        return self._memory[name][: torch.Size(shape).numel()].view(shape)

    def states(self, before, dt, driven, transition, B):
        """exp(dt A) of each step, and the state before the first step and after each."""
        steps, *sizes = dt.shape
        gains = self._buffer("gains", steps, *sizes)
        states = self._buffer("states", steps + 1, *sizes)
        torch.mul(dt[:, :, None], transition, out=gains).exp_()
        torch.mul(driven[:, :, None], B[..., None], out=states[1:])
        states[0] = before
        along = states.unbind()
        for t, gain in enumerate(gains.unbind()):
            along[t + 1].addcmul_(gain, along[t])
        return gains, states

    def adjoints(self, gains, later, d_y, C):
        """The adjoint of each state; `later` is what reaches the last from later steps."""
        adjoints = self._buffer("adjoints", *d_y.shape)
        torch.mul(d_y[:, :, None], C[..., None], out=adjoints)
        along, gains = adjoints.unbind(), gains.unbind()
        along[-1].add_(later)
        for t in reversed(range(len(along) - 1)):
            along[t].addcmul_(gains[t + 1], along[t + 1])
        return adjoints


def _at(z, part):
    """Some steps of `(batch, length, ...)`, the steps first."""
    return z.transpose(0, 1)[part]


def _beginning(initial, like, block):
    like = like[..., block]
    return torch.zeros_like(like) if initial is None else initial[:, block].mT


def _over_states(weights, states):
    """The sum over the states, weighted: `(steps, batch, features)`."""
    return torch.matmul(weights[:, :, None], states)[:, :, 0]


def _over_features(states, weights):
    """The sum over the features, weighted: `(steps, batch, state_dim)`."""
    return torch.matmul(states, weights[..., None])[..., 0]
