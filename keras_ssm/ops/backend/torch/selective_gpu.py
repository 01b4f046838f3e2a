"""The selective scan on an NVIDIA GPU, where the Triton kernels were found to be right."""

import importlib

import torch

from keras_ssm.ops.backend.torch import bank as torch_bank

# The largest state of a feature, which a thread has in its registers.
LARGEST_STATE = 16

SEQUENCES = (torch.float32, torch.bfloat16)

# The most programs that a launch may have along its second axis. Rows are cut into segments only
# where that gives fewer.
MOST_ROWS = 65535


def selective_by_kernels(x, dt, A, B, C, D, initial, portable, projection=()):
    """`selective_outputs` by GPU kernels, or `None` where they do not apply.

    Sequences may be bfloat16, the system is float32. The projection of the step sizes is a product,
    and its bias, softplus and mask are parts of the kernels.
    """
    if not _applies(x, dt, A, B, C, D, initial, projection):
        return None
    kernel, bias, mask = projection or (None, None, None)
    raw = dt if kernel is None else torch.matmul(dt, kernel)

    def plain(x, raw, bias, mask, A, *others):
        others = [t if t is None else t.to(A.dtype) for t in others]
        x, raw = x.to(A.dtype), raw.to(A.dtype)
        if bias is None:
            y, last = portable(x, raw, A, *others)
        else:
            one = torch.eye(len(bias), dtype=A.dtype, device=A.device)
            y, last = portable(x, raw, A, *others, one, bias, mask)
        return y.to(dtype), last

    dtype = x.dtype
    scan = importlib.import_module("keras_ssm.ops.backend.torch.triton.mamba").SelectiveScan
    return scan.apply(plain, x, raw, bias, mask, A, B, C, D, initial)


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
