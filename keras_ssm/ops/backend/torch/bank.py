"""Diagonal systems on an NVIDIA GPU, where the Triton kernels were found to be right."""

import functools
import importlib
import importlib.util
import os

import torch
from torch._subclasses.fake_tensor import FakeTensor

from keras_ssm.ops.backend.kernel_support import fast_paths_enabled, is_right, padded
from keras_ssm.ops.backend.torch.tensors import must_be_plain
from keras_ssm.ops.backend.walk_plan import MOST_MODES

# Largest error, relative to the largest entry, with which a card passes.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}

# The most programs that a launch may have along its second axis, of 16 rows each.
MOST_ROWS = 16 * 65535


# The largest dense state that a kernel takes.
LARGEST_STATE = 64


def fused_bank(u, bank, initial, lengths, bidirectional, return_state, D, portable):
    """Outputs and last state of `ops.chunked` by GPU kernels, or `None` where they do not apply.

    Args:
        u: tensor `(batch, length, features)`, float32 or shorter.
        bank: `DiagonalBank` or `DenseBank`.
        initial: tensor `(batch, features, states)` or `None`.
        lengths: integer tensor `(batch,)` or `None`.
        bidirectional: bool.
        return_state: bool.
        D: tensor `(channels, features)` or `None`.
        portable: function `(u, bank, initial, D)` with the same result, for gradients of
            gradients.

    Returns:
        Tuple `(y, state)`, y in the dtype of u.
    """
    if not _applies(u, bank, initial, D):
        return None
    functions = _kernels("functions")
    (re, im), (C_re, C_im) = bank.log_dA, bank.C
    dB = bank.dB or (None, None)

    def outputs(u, re, im, C_re, C_im, dB_re, dB_im, D, initial):
        pair = None if dB_re is None else (dB_re, dB_im)
        return portable(u.to(re.dtype), type(bank)((re, im), pair, (C_re, C_im)), initial, D)

    def again(u, *tensors):
        return outputs(u, *tensors)[0].to(u.dtype)

    def last(u, re, im, dB_re, dB_im, initial):
        return outputs(u, re, im, C_re, C_im, dB_re, dB_im, None, initial)[1]

    y = functions.Outputs.apply((bidirectional, again), u, re, im, C_re, C_im, *dB, D, initial)
    if not return_state:
        return y, None
    if lengths is not None:
        lengths = lengths.to(torch.int32)
    return y, functions.LastState.apply((lengths, last), u, re, im, *dB, initial)


def reads_short(x):
    """Whether `fused_bank` may take a sequence of this dtype, which other operations do not."""
    return x.dtype in (torch.bfloat16, torch.float16) and (
        (x.is_cuda or simulated()) and fast_paths_enabled() and not must_be_plain()
    )


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan` by a GPU kernel, or `None` where it does not apply."""
    if not has_fused_scan(inputs) or any(t.dtype != torch.float32 for t in (dA, inputs, initial)):
        return None
    if inputs.numel() == 0:
        return None
    return _kernels("kernels").diagonal_scan(dA, inputs, initial, reverse, portable)


def dense_states(E, inputs, states, initial, reverse):
    """`triton.dense.dense_states`, or `None` where that kernel does not apply."""
    if not has_dense_scan(inputs) or any(t.dtype != torch.float32 for t in (E, inputs)):
        return None
    if inputs.numel() == 0 or inputs.stride(3) != 1:
        return None
    return _kernels("dense").dense_states(E, inputs, states, initial, reverse)


def has_dense_scan(x):
    """Whether there is such a kernel for states or matrices of states x, now."""
    return x.shape[-1] <= LARGEST_STATE and has_kernel(x, "dense")


def fused_zoh(A, B, dt, portable):
    """`ops.discretize.zoh` by a GPU kernel, or `None` where it does not apply.

    `portable` is the same function of pairs A and B and dt, for gradients of gradients.
    """
    tensors = (*A, *B, dt)
    if any(t.dtype != torch.float32 for t in tensors):
        return None
    shape = A[0].shape
    if dt.ndim != 2 or dt.shape[0] != shape[0] or any(t.shape != shape for t in (*A, *B)):
        return None
    if not has_kernel(dt, "zoh"):
        return None

    def plain(A_re, A_im, B_re, B_im, dt):
        log_dA, dB = portable((A_re, A_im), (B_re, B_im), dt)
        return *log_dA, *dB

    re, im, dB_re, dB_im = _kernels("discretize").Hold.apply(plain, *tensors)
    return (re, im), (dB_re, dB_im)


def fused_dplr(A, P, B, dt, portable):
    """`ops.dplr.dplr_bilinear` of rank one by a GPU kernel, or `None` where it does not apply.

    `portable` is the same function, for gradients of gradients.
    """
    tensors = (*A, *P, *B, dt)
    if P[0].shape[0] != 1 or any(t.dtype != torch.float32 for t in tensors):
        return None
    shape = A[0].shape
    if 2 * shape[1] > LARGEST_STATE or dt.shape != (shape[0], 1):
        return None
    if any(t.shape[-2:] != shape for t in tensors[:-1]) or not has_kernel(dt, "dplr"):
        return None

    def plain(*tensors):
        A, P, B = (tensors[i : i + 2] for i in (0, 2, 4))
        return portable(A, tuple(part[None] for part in P), B, tensors[6])

    return _kernels("dplr").Bilinear.apply(plain, *A, *(part[0] for part in P), *B, dt)


def has_fused_scan(x):
    """Whether there is such a kernel for x, now."""
    return has_kernel(x, "scan")


def has_kernel(x, kernel):
    """Whether a kernel of `triton.check.ERRORS` may run where x is, now."""
    if not (x.is_cuda or simulated()) or not fast_paths_enabled() or must_be_plain():
        return False
    if isinstance(x, FakeTensor):  # while operations are traced
        return False
    return _known_right(x.device, torch.float32, kernel)


def _applies(u, bank, initial, D):
    if not (u.is_cuda or simulated()) or not fast_paths_enabled():
        return False
    if not (bank.is_diagonal and bank.normal) or must_be_plain():
        return False
    tensors = [t for t in (*bank.log_dA, *bank.C, *(bank.dB or ()), initial, D) if t is not None]
    if any(t.dtype != torch.float32 or t.device != u.device for t in tensors):
        return False
    if u.dtype not in TOLERANCE or u.numel() == 0 or u.shape[0] > MOST_ROWS:
        return False
    return ready(u.device, u.dtype, bank.log_dA[0].shape[-1])


def simulated():
    """Whether Triton interprets its kernels, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def ready(device, dtype, modes):
    """Whether the kernels for so many modes are right on a device; found out at the first call."""
    if not _has_kernels(device):
        return False
    return _known_right(device, dtype, min(MOST_MODES, padded(modes)))


def _known_right(device, dtype, kernel):
    if not _has_kernels(device):
        return False
    case = device, dtype, kernel
    if case not in _RIGHT:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # nothing can be compared while a graph is captured
        _RIGHT[case] = device.type == "cpu" or _is_right(*case)
    return _RIGHT[case]


_RIGHT = {}


@functools.cache
def _has_kernels(device):
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cuda" and torch.version.hip is not None:
        return False
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return (device.type == "cpu") == _kernels("walk").INTERPRETED


def _is_right(device, dtype, kernel):
    def error():
        from keras_ssm.ops.backend.torch.triton import check as triton_check

        with torch.inference_mode(False), torch.enable_grad():
            if isinstance(kernel, str):
                return triton_check.ERRORS[kernel](device)
            return triton_check.error_of_bank(device, dtype, kernel)

    return is_right(error, TOLERANCE[dtype], lambda: torch.cuda.get_device_name(device))


def _kernels(name):
    return importlib.import_module(f"keras_ssm.ops.backend.torch.triton.{name}")
