"""The selective scan on PyTorch: one function with its own gradient, some steps at a time.

Left to autograd, most of the time goes into new memory. Here some features and steps at a time are
computed in buffers that a CPU's caches hold. The gradient computes their states anew.
"""

import torch

from keras_ssm.ops.backend.torch.step_sizes import StepSizes
from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd

# Steps between stored states. And the numbers in the states of one step, for the features that are
# computed together. Both were measured.
STEPS = 32
TOGETHER = 2**13

# Smaller states are not worth the calls of every step: the portable form takes blocks of them.
FEWEST = 2**8


def selective_outputs(x, dt, A, B, C, D, initial, portable, projection=()):
    """Outputs and last state of `ops.selective_scan`, or of `ops.projected_scan`.

    Args:
        x, dt: tensors `(batch, length, features)`.
        A: tensor `(features, state_dim)`.
        B, C: tensors `(batch, length, state_dim)`.
        D: tensor `(features,)` or `None`.
        initial: tensor `(batch, features, state_dim)` or `None` (zero).
        portable: function of these tensors, and then those of `projection`, with the same
            results, for gradients of gradients.
        projection: nothing, or of `ops.projected_scan` the kernel `(rank, features)`, bias
            `(features,)` and mask `(batch, length)` or `None`. What is called dt is then `low`,
            `(batch, length, rank)`.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, features, state_dim)`, or
        `None` where the portable form is faster.
    """
    numbers = dt, A, B, C, D, initial, *projection[:2]
    mixed = any(z is not None and z.dtype != x.dtype for z in numbers)
    if mixed or x.device.type != "cpu" or x.shape[0] * A.numel() < FEWEST:
        return None
    return _Selective.apply(portable, x, dt, A, B, C, D, initial, *projection)


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx, portable, *tensors):
        ctx.portable = portable
        x, dt, A, B, C, D, initial, *projection = tensors
        held = None
        if projection and any(ctx.needs_input_grad):
            held = x.new_empty((x.shape[1], x.shape[0], x.shape[2]))
        work, step_sizes = _Workspace(x, A), StepSizes(STEPS, dt, *projection, held=held)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        starts = x.new_empty((len(_parts(x)), x.shape[0], *A.mT.shape))
        last = torch.empty_like(starts[0])
        B_parts, C_parts = _parts(B), _parts(C)
        for block in work.blocks:
            step_sizes.choose(block)
            state, transition = _beginning(initial, last, block), A[block].mT.contiguous()
            here = starts[..., block], _parts(x, block), _parts(y, block), B_parts, C_parts
            for i, (start, X, part, B, C) in enumerate(zip(*here, strict=True)):
                start.copy_(state)
                dt = step_sizes.of(i)
                _, states = work.states(state, dt, dt * X, transition, B)
                state = states[-1].clone()
                part.copy_(_over_states(C, states[1:]))
            last[..., block] = state
        if D is not None:
            y.addcmul_(x, D)
        ctx.save_for_backward(*tensors, starts, held)
        return y, last.mT.contiguous()

    @staticmethod
    def backward(ctx, d_y, d_last):
        *tensors, starts, held = ctx.saved_tensors
        if needs_autograd(d_y, d_last):
            return None, *by_autograd(ctx.portable, tensors, (d_y, d_last))
        x, dt, A, B, C, D, initial, *projection = tensors
        work, step_sizes = _Workspace(x, A), StepSizes(STEPS, dt, *projection, held=held)
        step_sizes.differentiate()
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        d_A, d_B, d_C = (torch.zeros_like(z) for z in (A, B, C))
        d_D = x.new_zeros((min(STEPS, x.shape[1]), x.shape[0], x.shape[2]))  # summed at the end
        d_initial = d_last.mT.contiguous()
        of_steps = [_parts(z) for z in (B, C, d_B, d_C)]
        for block in work.blocks:
            step_sizes.choose(block)
            later, transition = d_initial[..., block].contiguous(), A[block].mT.contiguous()
            skip, d_skip = None if D is None else D[block], d_D[..., block]
            here = starts[..., block], *(_parts(z, block) for z in (x, d_y, d_x)), *of_steps
            parts = [*enumerate(zip(*here, strict=True))]
            for i, (start, X, dy, dx, B, C, dB, dC) in reversed(parts):
                dt = step_sizes.of(i)
                driven = dt * X
                gains, states = work.states(start, dt, driven, transition, B)
                adjoints = work.adjoints(later, dy, C)
                dC.add_(_over_features(states[1:], dy))
                dB.add_(_over_features(adjoints, driven))
                d_driven = _over_states(B, adjoints)
                torch.mul(d_driven, dt, out=dx)
                if D is not None:
                    dx.addcmul_(dy, skip)
                    d_skip[: len(X)].addcmul_(dy, X)
                through = gains.mul_(adjoints)
                later.copy_(through[0])
                through.mul_(states[:-1])  # the gradient of dt A
                slope = torch.mul(through, transition, out=adjoints).sum(2)
                d_A[block] += through.mul_(dt[:, :, None]).sum((0, 1)).mT
                step_sizes.add_gradients(i, dt, slope.addcmul_(d_driven, X))
            d_initial[..., block] = later
        d_initial = None if initial is None else d_initial.mT
        d_D = None if D is None else d_D.sum((0, 1))
        d_dt, *d_projection = step_sizes.gradients()
        return None, d_x, d_dt, d_A, d_B, d_C, d_D, d_initial, *d_projection


class _Workspace:
    """Buffers `(steps, batch, state_dim, features)` that serve one part after another.

    Features lie beside each other in memory, so that operations run over long rows.
    """

    def __init__(self, x, A):
        batch, length, features = x.shape
        self.state_dim = A.shape[1]
        together = min(features, max(16, TOGETHER // (batch * self.state_dim)))
        self.blocks = [slice(i, min(i + together, features)) for i in range(0, features, together)]
        row = batch * self.state_dim * together
        steps = min(STEPS, length)
        sizes = {"gains": steps, "adjoints": steps, "states": steps + 1}
        self._memory = {name: x.new_empty(row * steps) for name, steps in sizes.items()}
        self._views = {}

    def _buffer(self, name, steps, batch, features):
        """A buffer and its steps one by one, of which the views are made once for all parts."""
        key = name, steps, features
        if key not in self._views:
            shape = (steps, batch, self.state_dim, features)
            buffer = self._memory[name][: torch.Size(shape).numel()].view(shape)
            self._views[key] = buffer, buffer.unbind()
        return self._views[key]

    def states(self, before, dt, driven, transition, B):
        """exp(dt A) of each step, and the state before the first step and after each."""
        steps, *sizes = dt.shape
        gains, gain_of_step = self._buffer("gains", steps, *sizes)
        states, along = self._buffer("states", steps + 1, *sizes)
        torch.mul(dt[:, :, None], transition, out=gains).exp_()
        torch.mul(driven[:, :, None], B[..., None], out=states[1:])
        states[0] = before
        for t, gain in enumerate(gain_of_step):
            along[t + 1].addcmul_(gain, along[t])
        return gains, states

    def adjoints(self, later, d_y, C):
        """The adjoint of each state; `later` is what reaches the last from later steps."""
        _, gains = self._buffer("gains", *d_y.shape)
        adjoints, along = self._buffer("adjoints", *d_y.shape)
        torch.mul(d_y[:, :, None], C[..., None], out=adjoints)
        along[-1].add_(later)
        for t in reversed(range(len(along) - 1)):
            along[t].addcmul_(gains[t + 1], along[t + 1])
        return adjoints


def _parts(z, block=slice(None)):
    """Some steps after others of some features of `(batch, length, features)`, steps first."""
    return z.transpose(0, 1)[..., block].split(STEPS)


def _beginning(initial, like, block):
    like = like[..., block]
    return torch.zeros_like(like) if initial is None else initial[:, block].mT


def _over_states(weights, states):
    """The sum over the states, weighted: `(steps, batch, features)`."""
    return torch.matmul(weights[:, :, None], states)[:, :, 0]


def _over_features(states, weights):
    """The sum over the features, weighted: `(steps, batch, state_dim)`."""
    return torch.matmul(states, weights[..., None])[..., 0]
