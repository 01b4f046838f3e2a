"""GPU kernels for PyTorch, written in Triton. Not measured on a GPU.

Triton is imported at the first use. With `TRITON_INTERPRET=1` in the environment by then, the
kernels run in its interpreter, on a CPU.
"""

import importlib
import importlib.util
import os

import torch

from keras_ssm.ops.backend.kernel_shapes import check_chunk_pass, check_diagonal_scan, fits
from keras_ssm.ops.backend.switch import fast_paths_enabled


def supported(operation, *arrays):
    """Whether a kernel can take the place of the portable operation.

    Args:
        operation: `"chunk_pass"` or `"diagonal_scan"`.
        *arrays: the tensor arguments of that function, in its order.

    Returns:
        bool. `False` on a CPU outside the interpreter, for other types than float32, for chunks
        or states larger than 128, under `torch.compile` and export, without Triton, and
        unless `KERAS_SSM_FAST_PATHS` is `1`.

    Raises:
        ValueError: if `operation` is unknown.
    """
    if not fits(operation, arrays) or not fast_paths_enabled():
        return False
    if torch.compiler.is_compiling() or len({array.device for array in arrays}) > 1:
        return False
    if importlib.util.find_spec("triton") is None:
        return False
    device = arrays[0].device
    if device.type == "cpu":
        asked = os.environ.get("TRITON_INTERPRET") == "1"
        return asked and _kernels("chunk").INTERPRETED
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return not _kernels("chunk").INTERPRETED


def chunk_pass(x, response, E_in, transition, E_out, precision="float32"):
    """Applies a diagonal bank chunk by chunk, from a state of zero, in one kernel.

    With inputs U and the state x before a chunk, y = U response + x E_out, and the state after
    it is transition x (a complex product) + U E_in. Not measured on a GPU.

    Args:
        x: float32 tensor `(batch, length, features)`. Inputs.
        response: float32 tensor `(features, T, T)`. What step j of a chunk gives to step i, in
            entry j, i: the kernel at i - j, or zero where i < j.
        E_in: float32 tensor `(features, T, 2 modes)`. What each step adds to the state.
        transition: float32 tensor `(features, 2 modes)`. dA^T; real parts, then imaginary parts.
        E_out: float32 tensor `(features, 2 modes, T)`. What the state gives to each step.
        precision: `"float32"` or `"tf32"`. Whether the products with response, E_in and E_out
            may use TF32, there and in their gradients. The states always advance in float32.

    Returns:
        Tensor `(batch, length, features)`, with gradients for all five.

    Raises:
        ValueError: if shapes do not fit each other, or `precision` is unknown.

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """
    check_chunk_pass(x, response, E_in, transition, E_out, precision)
    return _kernels("chunk").ChunkPass.apply(x, response, E_in, transition, E_out, precision)


def diagonal_scan(dA, inputs, initial, reverse=False):
    """Returns the state after each step of a diagonal recurrence, in one kernel.

    Not measured on a GPU.

    Args:
        dA: float32 tensor `(..., steps or 1, 2 modes)`. State transition of each step, or the
            same for all; its leading axes broadcast against those of `inputs`.
        inputs: float32 tensor `(..., steps, 2 modes)`. What each step adds to the state.
        initial: float32 tensor `(..., 2 modes)`. State before the first step (after the last
            one if `reverse`), with the leading axes of `inputs`.
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tensor `(..., steps, 2 modes)`, with gradients for all three.

    Raises:
        ValueError: if shapes do not fit each other.

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2.
    """
    check_diagonal_scan(dA, inputs, initial)
    return _kernels("scan").DiagonalScan.apply(dA, inputs, initial, bool(reverse))


def _kernels(name):
    return importlib.import_module(f"keras_ssm.ops.backend.triton_{name}")
