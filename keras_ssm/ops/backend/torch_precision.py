"""Products on PyTorch in full float32, whatever its fast modes are."""

import torch


def exact(product, *operands):
    """A product of tensors, `torch.bmm` or the like, that never drops to TF32."""
    x = operands[0]
    if x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return product(*(v.double() for v in operands)).float()
    return product(*operands)
