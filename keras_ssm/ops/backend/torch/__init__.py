"""PyTorch forms of the primitives that differ between backends."""

import contextlib
import functools

import torch
from keras import tree

from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch.bank import fused_bank, fused_dplr, fused_zoh, reads_short
from keras_ssm.ops.backend.torch.chunks import chunk_outputs
from keras_ssm.ops.backend.torch.dual import dual_outputs
from keras_ssm.ops.backend.torch.fourier import circular
from keras_ssm.ops.backend.torch.gate import gated, glu, sigmoid_gated
from keras_ssm.ops.backend.torch.mimo import mimo_outputs
from keras_ssm.ops.backend.torch.norms import fused_layer_norm, fused_norm
from keras_ssm.ops.backend.torch.numbers import (
    arctan2,
    complex_of,
    cos,
    cumsum,
    einsum,
    largest,
    matmul,
    maximum,
    mean,
    minimum,
    pad,
    sin,
    tanh,
)
from keras_ssm.ops.backend.torch.precision import exact
from keras_ssm.ops.backend.torch.products import project
from keras_ssm.ops.backend.torch.programs import program, step_program
from keras_ssm.ops.backend.torch.scan import scan_in_blocks, scan_in_complex
from keras_ssm.ops.backend.torch.selective import selective_outputs
from keras_ssm.ops.backend.torch.selective_gpu import selective_by_kernels
from keras_ssm.ops.backend.torch.short_conv import fused_conv_silu
from keras_ssm.ops.backend.torch.tensors import all_true, must_be_plain
from keras_ssm.ops.backend.torch.toeplitz import toeplitz
from keras_ssm.ops.backend.torch.traced import traced

__all__ = [
    "LONGEST_UNROLLED",
    "all_true",
    "arctan2",
    "argsort",
    "assign_part",
    "circular",
    "compiles_gradients",
    "complex_of",
    "contiguous",
    "cos",
    "cumsum",
    "dense",
    "device_name",
    "einsum",
    "exact_einsum",
    "export_arguments",
    "exports_loops",
    "exports_unknown_lengths",
    "fused_bank",
    "fused_chunks",
    "fused_conv_silu",
    "fused_dplr",
    "fused_dual",
    "fused_layer_norm",
    "fused_mimo",
    "fused_norm",
    "fused_scan",
    "fused_selective",
    "fused_zoh",
    "gated",
    "glu",
    "keras_writes_onnx",
    "largest",
    "loops_over_unknown_steps",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "pad",
    "program",
    "project",
    "reads_short",
    "scan_states",
    "sequential",
    "sigmoid_gated",
    "sin",
    "split",
    "static_value",
    "step_program",
    "take_steps",
    "takes_erfc",
    "tanh",
    "toeplitz",
    "traced",
    "track_weights",
    "transposed",
    "unrolled",
    "uses_xla",
    "with_gradient",
    "without_gradients",
    "writes_saved_models",
]

LONGEST_UNROLLED = 10**9  # nothing is compiled: a loop costs nothing extra


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32."""
    return exact(functools.partial(torch.einsum, equation), *operands)


def dense(x, matrix):
    """By a product: a convolution, as in `project`, was slower with its gradients."""
    return matmul(x, matrix)


def split(x, sizes):
    """By numbers: Keras makes tensors of the places, and a graph would not know the sizes."""
    return torch.split(x, sizes, dim=-1)


def take_steps(x, places):
    """By a gather: what broadcasts would fix the sizes of an exported program."""
    return torch.gather(x, 1, places.long()[..., None].expand(-1, -1, x.shape[2]))


def argsort(x):
    """By an operation that ONNX has too, where a graph is made."""
    if torch.compiler.is_compiling():
        return torch.topk(x, x.shape[-1], largest=False).indices
    return torch.argsort(x)


@functools.cache
def device_name():
    """The first NVIDIA GPU as its driver names it, or `"cpu"` where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def static_value(x):
    """The value of x as a NumPy array, or `None` while compiling or on the meta device."""
    if torch.compiler.is_compiling() or (torch.is_tensor(x) and x.device.type == "meta"):
        return None
    return x.detach().cpu().numpy() if torch.is_tensor(x) else x


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    count = tree.flatten(samples)[0].shape[0]
    outputs = []
    for t in reversed(range(count)) if reverse else range(count):
        carry, output = advance(carry, tree.map_structure(lambda x: x[t], samples))  # noqa: B023
        outputs.append(output)
    outputs = outputs[::-1] if reverse else outputs
    return carry, _stacked(outputs)


def _stacked(outputs):
    if outputs[0] is None:
        return None
    return tree.map_structure(lambda *steps: torch.stack(steps), *outputs)


def unrolled(advance, state, steps, reverse=False):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, written in place."""
    order = range(steps)[::-1] if reverse else range(steps)
    state = advance(state, order[0])
    states = state.new_empty((*state.shape[:-1], steps, state.shape[-1]))
    states[..., order[0], :] = state
    for t in order[1:]:
        state = advance(state, t)
        states[..., t, :] = state
    return states


def without_gradients():
    """A context in which no operation is recorded; programs that are traced have none anyway."""
    return contextlib.nullcontext() if torch.compiler.is_compiling() else torch.no_grad()


def compiles_gradients():
    """PyTorch runs op by op."""
    return False


def with_gradient(forward, backward):
    """A function of tensors with its own gradient, but where only PyTorch's can be."""
    if must_be_plain():
        return lambda *tensors: forward(*tensors)[0]

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            outputs, residuals = forward(*tensors)
            ctx.save_for_backward(*residuals)
            return outputs

        @staticmethod
        def backward(ctx, *cotangents):
            single = cotangents[0] if len(cotangents) == 1 else cotangents
            return tuple(backward(ctx.saved_tensors, single))

    return Function.apply


def transposed(x):
    """Of two axes PyTorch copies in blocks, of more element by element."""
    if must_be_plain() or torch.jit.is_tracing():
        return x.T.contiguous()
    return _Transposed.apply(x)


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.T.contiguous()

    @staticmethod
    def backward(ctx, d_y):
        return transposed(d_y)


def contiguous(x):
    """x in the order of its axes: on others a batched matmul is a loop."""
    return x.contiguous()


def scan_states(dA, inputs, initial, reverse):
    """The states of `ops.scan` in place, for a transition that does not change.

    `None` while compiling, and where autograd looks on, which follows no work in place.
    """
    if dA.shape[-2] != 1 or torch.is_grad_enabled() or must_be_plain():
        return None
    return scan_in_complex(dA, inputs, initial, reverse)


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan`, by a GPU kernel or in place.

    `None` for changing transitions outside the kernel, and while compiling.
    """
    if inputs.shape[-2] == 1 or must_be_plain():
        return None
    states = torch_bank.fused_scan(dA, inputs, initial, reverse, portable)
    if states is not None:
        return states
    return scan_in_blocks(dA, inputs, initial, reverse, portable) if dA.shape[-2] == 1 else None


def fused_mimo(u, dA, dB, C, D, initial, portable):
    """Outputs and last state of a diagonal system of many inputs.

    `None` while compiling, and where `fused_scan` has a kernel.
    """
    if must_be_plain() or u.device.type == "meta" or torch_bank.has_fused_scan(u):
        return None
    return mimo_outputs(u, dA, dB, C, D, initial, portable)


def fused_dual(x, dt, A, B, C, initial, chunk_size, portable):
    """Outputs and last state of a state-space dual; `None` while compiling."""
    if must_be_plain():
        return None
    return dual_outputs(x, dt, A, B, C, initial, chunk_size, portable)


def fused_selective(x, dt, A, B, C, D, initial, portable, projection=()):
    """Outputs and last state of a selective scan; `None` while compiling."""
    if must_be_plain():
        return None
    arguments = x, dt, A, B, C, D, initial, portable, projection
    outputs = selective_by_kernels(*arguments)
    return selective_outputs(*arguments) if outputs is None else outputs


def fused_chunks(u, T, matrices, initial, portable):
    """Outputs and last state of `ops.chunked` in one function; `None` while compiling."""
    if must_be_plain() or u.device.type == "meta":
        return None
    return chunk_outputs(u, T, matrices, initial, portable)


def uses_xla():
    """Whether programs are compiled by XLA."""
    return False


def takes_erfc():
    """PyTorch has an operation for the exact GELU."""
    return False


def loops_over_unknown_steps():
    """`sequential` takes the samples apart, of which a graph must know the number."""
    return False


def exports_unknown_lengths():
    """A program would read sequences of one length, and not say so."""
    return False


def exports_loops():
    """Whether an exported program may hold loops."""
    return False


def writes_saved_models():
    """Whether Keras writes a TensorFlow SavedModel."""
    return False


def keras_writes_onnx():
    """No: it takes an older exporter of PyTorch where a size is unknown."""
    return False


def export_arguments(format, signature, length_axis):
    """For PyTorch's own programs which sizes are any."""
    if format != "torch":
        return {}
    free = tree.map_structure(
        lambda spec: {0: torch.export.Dim.AUTO} if spec.shape[0] is None else {}, signature
    )
    return {"dynamic_shapes": [(free,)]}


def track_weights(model):
    """Makes them parameters of the module that PyTorch sees."""
    model._track_variables()


def assign_part(variable, part, start, axis):
    """In place."""
    with torch.no_grad():
        place = variable.value.narrow(axis, start, part.shape[axis])
        place.copy_(torch.from_numpy(part))
