"""PyTorch forms of the primitives that differ between backends."""

import torch

from keras_ssm.ops.backend.switch import fast_paths_enabled

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 10**9  # a loop is a loop


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32."""
    x = operands[0]
    if x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return torch.einsum(equation, *(v.double() for v in operands)).float()
    return torch.einsum(equation, *operands)


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


def written_out(advance, state, steps):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, written in place."""
    state = advance(state, 0)
    states = state.new_empty((*state.shape[:-1], steps, state.shape[-1]))
    states[..., 0, :] = state
    for t in range(1, steps):
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


def compiled(function):
    """The function itself: PyTorch runs eagerly."""
    return function


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


def fused_chunks(x, response, transition, E_in, E_out):
    """The outputs of `ops.chunked` by a Triton kernel, or `None` where it does not apply."""
    from keras_ssm.ops.backend import triton_kernels

    arrays = (x, response, E_in, transition, E_out)
    if not fast_paths_enabled() or not triton_kernels.supported("chunk_pass", *arrays):
        return None
    return triton_kernels.chunk_pass(*arrays)
