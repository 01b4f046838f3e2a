"""PyTorch forms of the primitives that differ between backends."""

import functools

import torch

from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch.bank import fused_bank as fused_bank
from keras_ssm.ops.backend.torch.bank import fused_zoh as fused_zoh
from keras_ssm.ops.backend.torch.bank import reads_short as reads_short
from keras_ssm.ops.backend.torch.chunks import chunk_outputs
from keras_ssm.ops.backend.torch.mimo import mimo_outputs
from keras_ssm.ops.backend.torch.precision import exact
from keras_ssm.ops.backend.torch.products import project as project
from keras_ssm.ops.backend.torch.scan import scan_states

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 10**9  # a loop is a loop


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32."""
    return exact(functools.partial(torch.einsum, equation), *operands)


def concrete(x):
    """The value of x as a NumPy array, or `None` while compiling or on the meta device."""
    if torch.compiler.is_compiling() or (torch.is_tensor(x) and x.device.type == "meta"):
        return None
    return x.detach().cpu().numpy() if torch.is_tensor(x) else x


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    outputs, samples = [], samples.unbind(0)
    for sample in reversed(samples) if reverse else samples:
        carry, output = advance(carry, sample)
        outputs.append(output)
    return carry, torch.stack(outputs[::-1] if reverse else outputs)


def written_out(advance, state, steps, reverse=False):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, written in place."""
    order = range(steps)[::-1] if reverse else range(steps)
    state = advance(state, order[0])
    states = state.new_empty((*state.shape[:-1], steps, state.shape[-1]))
    states[..., order[0], :] = state
    for t in order[1:]:
        state = advance(state, t)
        states[..., t, :] = state
    return states


def with_gradient(forward, backward):
    """A function of tensors with its own gradient.

    `forward(*tensors)` returns `(outputs, kept)`, and `backward(kept, cotangents)` the gradient
    of each tensor.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            outputs, kept = forward(*tensors)
            ctx.save_for_backward(*kept)
            return outputs

        @staticmethod
        def backward(ctx, *cotangents):
            single = cotangents[0] if len(cotangents) == 1 else cotangents
            return tuple(backward(ctx.saved_tensors, single))

    return Function.apply


def toeplitz(diagonals):
    """`ops.toeplitz` in one copy; its gradient sums row by row, without a larger tensor."""
    if torch.compiler.is_compiling():
        return _rows_of_toeplitz(diagonals)
    return _Toeplitz.apply(diagonals)


def _rows_of_toeplitz(diagonals):
    n = (diagonals.shape[-1] + 1) // 2
    return diagonals.unfold(-1, n, 1).flip(-2)


class _Toeplitz(torch.autograd.Function):
    @staticmethod
    def forward(ctx, diagonals):
        return _rows_of_toeplitz(diagonals)

    @staticmethod
    def backward(ctx, upstream):
        n = upstream.shape[-1]
        total = upstream.new_zeros((*upstream.shape[:-2], 2 * n - 1))
        for i, row in enumerate(upstream.unbind(-2)):
            total[..., n - 1 - i : 2 * n - 1 - i] += row
        return total


def compiled(function, steps):
    """The function itself: PyTorch runs eagerly."""
    return function


def contiguous(x):
    """x in the order of its axes: on others a batched matmul is a loop."""
    return x.contiguous()


def blocks_pay():
    """Whether blocks that fit the caches of a CPU are faster than all features at once."""
    return False  # measured: the interpreter's time for small blocks is more than they save


def carry_states(transition, inputs, initial, reverse):
    """The states of `ops.carry`, written in place; `None` for dense transitions."""
    if transition.ndim == 3:
        return None
    modes = transition.shape[-1] // 2
    a = torch.complex(transition[:, :modes], transition[:, modes:])[:, None]
    s = torch.complex(inputs[..., :modes], inputs[..., modes:])
    before = torch.empty_like(s)
    state = torch.complex(initial[..., :modes], initial[..., modes:])
    for m in reversed(range(s.shape[2])) if reverse else range(s.shape[2]):
        before[:, :, m] = state
        state = torch.addcmul(s[:, :, m], a, state)
    return torch.cat([before.real, before.imag], dim=-1), torch.cat([state.real, state.imag], -1)


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan`, by a GPU kernel or in place.

    `None` for changing transitions outside the kernel, and while compiling.
    """
    if inputs.shape[-2] == 1 or torch.compiler.is_compiling():
        return None
    states = torch_bank.fused_scan(dA, inputs, initial, reverse, portable)
    if states is not None:
        return states
    return scan_states(dA, inputs, initial, reverse, portable) if dA.shape[-2] == 1 else None


def fused_mimo(u, dA, dB, C, D, initial, portable):
    """Outputs and last state of a diagonal system of many inputs.

    `None` while compiling, and where `fused_scan` has a kernel.
    """
    if torch.compiler.is_compiling() or u.device.type == "meta" or torch_bank.has_fused_scan(u):
        return None
    return mimo_outputs(u, dA, dB, C, D, initial, portable)


def fused_chunks(u, T, matrices, initial, return_state, portable):
    """Outputs and last state of `ops.chunked` in one function; `None` while compiling."""
    if torch.compiler.is_compiling() or u.device.type == "meta":
        return None
    return chunk_outputs(u, T, matrices, initial, portable)
