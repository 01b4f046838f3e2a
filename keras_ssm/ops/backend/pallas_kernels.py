"""GPU kernels for JAX, written in Pallas. Not measured on a GPU.

Pallas is imported at the first use. With `interpret=True` the kernels run in its interpreter, on
a CPU.
"""

import importlib

import jax

from keras_ssm.ops.backend.kernel_shapes import check_chunk_pass, check_diagonal_scan, fits
from keras_ssm.ops.backend.switch import trials_enabled


def supported(operation, *arrays, interpret=False):
    """Whether a kernel can take the place of the portable operation.

    Args:
        operation: `"chunk_pass"` or `"diagonal_scan"`.
        *arrays: the array arguments of that function, in its order; tracers will do.
        interpret: bool. Whether the interpreter counts on a CPU.

    Returns:
        bool. `False` on a CPU outside the interpreter, for other types than float32, for chunks
        or states larger than 128, for symbolic shapes, without Pallas, and
        unless `KERAS_SSM_FAST_PATHS` is `1`.

    Raises:
        ValueError: if `operation` is unknown.
    """
    if not fits(operation, arrays) or not trials_enabled():
        return False
    try:
        _kernels("chunk")
    except ImportError:
        return False
    device = _device()
    if device.platform == "cpu":
        return interpret
    if device.platform not in ("gpu", "cuda"):
        return False
    try:  # AMD's are called gfx...
        return float(device.compute_capability) >= 8.0
    except (AttributeError, ValueError):
        return False


def chunk_pass(x, response, E_in, transition, E_out, precision="float32", interpret=False):
    """Applies a diagonal bank chunk by chunk, from a state of zero, in one kernel.

    With inputs U and the state x before a chunk, y = U response + x E_out, and the state after
    it is transition x (a complex product) + U E_in. Not measured on a GPU.

    Args:
        x: float32 array `(batch, length, features)`. Inputs.
        response: float32 array `(features, T, T)`. What step j of a chunk gives to step i, in
            entry j, i: the kernel at i - j, or zero where i < j.
        E_in: float32 array `(features, T, 2 modes)`. What each step adds to the state.
        transition: float32 array `(features, 2 modes)`. dA^T; real parts, then imaginary parts.
        E_out: float32 array `(features, 2 modes, T)`. What the state gives to each step.
        precision: `"float32"` or `"tf32"`. Whether the products with response, E_in and E_out
            may use TF32, there and in their gradients. The states always advance in float32.
        interpret: bool. Whether to run in the interpreter.

    Returns:
        Array `(batch, length, features)`, with gradients for all five.

    Raises:
        ValueError: if shapes do not fit each other, or `precision` is unknown.

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """
    check_chunk_pass(x, response, E_in, transition, E_out, precision)
    run = _kernels("chunk").chunk_pass
    return run(x, response, E_in, transition, E_out, precision, bool(interpret))


def diagonal_scan(dA, inputs, initial, reverse=False, interpret=False):
    """Returns the state after each step of a diagonal recurrence, in one kernel.

    Not measured on a GPU.

    Args:
        dA: float32 array `(..., steps or 1, 2 modes)`. State transition of each step, or the
            same for all; its leading axes broadcast against those of `inputs`.
        inputs: float32 array `(..., steps, 2 modes)`. What each step adds to the state.
        initial: float32 array `(..., 2 modes)`. State before the first step (after the last one
            if `reverse`), with the leading axes of `inputs`.
        reverse: bool. Whether the recurrence runs from the last step to the first.
        interpret: bool. Whether to run in the interpreter.

    Returns:
        Array `(..., steps, 2 modes)`, with gradients for all three.

    Raises:
        ValueError: if shapes do not fit each other.

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2.
    """
    check_diagonal_scan(dA, inputs, initial)
    run = _kernels("scan").diagonal_scan
    return run(dA, inputs, initial, bool(reverse), bool(interpret))


def _device():
    """The device that JAX computes on when nothing else is said."""
    chosen = jax.config.jax_default_device
    if isinstance(chosen, str):
        return jax.devices(chosen)[0]
    return chosen or jax.devices()[0]


def _kernels(name):
    return importlib.import_module(f"keras_ssm.ops.backend.pallas_{name}")
