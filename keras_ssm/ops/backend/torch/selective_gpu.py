"""The selective scan on an NVIDIA GPU, where the Triton kernels were found to be right."""

import importlib

import torch

from keras_ssm.ops.backend.scan_plan import LARGEST_STATE
from keras_ssm.ops.backend.torch import bank as torch_bank

SEQUENCES = (torch.float32, torch.bfloat16)

# The most programs that a launch may have along its second axis. Rows are cut into segments only
# where that gives fewer.
MOST_ROWS = 65535


def selective_by_kernels(x, dt, A, B, C, D, initial, portable, projection=()):
    """`selective_outputs` by GPU kernels, or `None` where they do not apply.

    Sequences may be bfloat16, the system is float32. The projection of the step sizes is a product
    that the gradient computes anew, and its bias, softplus and mask are parts of the kernels.
    """
    if not _applies(x, dt, A, B, C, D, initial, projection):
        return None
    projection = projection or (None, None, None)

    def plain(x, low, kernel, bias, mask, A, *others):
        others = [t if t is None else t.to(A.dtype) for t in others]
        projection = () if kernel is None else (kernel, bias, mask)
        y, last = portable(x.to(A.dtype), low.to(A.dtype), A, *others, *projection)
        return y.to(dtype), last

    dtype = x.dtype
    scan = importlib.import_module("keras_ssm.ops.backend.torch.triton.mamba").SelectiveScan
    return scan.apply(plain, x, dt, *projection, A, B, C, D, initial)


def _applies(x, dt, A, B, C, D, initial, projection):
    if not torch_bank.has_kernel(x, "selective") or A.shape[1] > LARGEST_STATE:
        return False
    if x.numel() == 0 or x.shape[0] > MOST_ROWS:
        return False
    sequences, system = (x, dt, B, C), [t for t in (A, D, initial) if t is not None]
    if projection:
        sequences, system = (x, B, C), [*system, dt, *projection[:2]]
    return (
        all(t.dtype in SEQUENCES for t in sequences)
        and all(t.dtype == torch.float32 for t in system)
        and all(t.device == x.device for t in (*sequences, *system))
    )
