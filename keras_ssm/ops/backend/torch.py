"""PyTorch forms of the primitives that differ between backends."""

import torch

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


def sequential(advance, carry, samples):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    outputs = []
    for sample in samples.unbind(0):
        carry, output = advance(carry, sample)
        outputs.append(output)
    return carry, torch.stack(outputs)


def written_out(advance, state, steps):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, written in place."""
    state = advance(state, 0)
    states = state.new_empty((*state.shape[:-1], steps, state.shape[-1]))
    states[..., 0, :] = state
    for t in range(1, steps):
        state = advance(state, t)
        states[..., t, :] = state
    return states
