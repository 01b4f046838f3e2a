"""Products of many rows and one matrix on PyTorch.

On a CPU PyTorch multiplies matrices by MKL and convolves by oneDNN, which was measured up to 2.5
times as fast on an AMD processor: a convolution of width 1 is the same product.
"""

import torch
from torch.nn import functional

# Float32 numbers in the widest register of a CPU: the size of the groups of a convolution.
VECTOR = 16

# Multiplications from which a convolution is faster, measured: see docs/performance.md.
FEWEST_MULTIPLICATIONS = 2**23


def project(x, matrix):
    """Rows times a matrix.

    Args:
        x: tensor `(..., length, inputs)`.
        matrix: tensor `(inputs, outputs)`.

    Returns:
        Tensor `(..., length, outputs)`.
    """
    if not _convolves(x, matrix.shape[1]):
        return torch.matmul(x, matrix)
    image = functional.conv2d(_as_image(x), matrix.mT[:, :, None, None])
    return image.squeeze(2).mT.contiguous()


def sum_of_outer_products(a, b):
    """The gradient of the matrix of `project`: a^T b, summed over batch and length.

    Args:
        a: tensor `(batch, length, inputs)`.
        b: tensor `(batch, length, outputs)`.

    Returns:
        Tensor `(inputs, outputs)`.
    """
    if not _convolves(a, b.shape[2]):
        return a.flatten(0, 1).mT @ b.flatten(0, 1)
    shape = (b.shape[2], a.shape[2], 1, 1)
    product = torch.nn.grad.conv2d_weight(_as_image(a), shape, _as_image(b))
    return product[:, :, 0, 0].mT


def product_by_feature(a, b, out):
    """A batched product, by a grouped convolution where that is faster.

    Args:
        a: tensor `(features, rows, inputs)`. It need not be copied where it is the transpose of
            contiguous memory `(rows, features, inputs)`.
        b: tensor `(features, inputs, outputs)`.
        out: function of a shape, memory for a product that is no convolution.

    Returns:
        Tensor `(features, rows, outputs)`; of a convolution the transpose of contiguous memory.
    """
    features, rows, inputs = a.shape
    outputs = b.shape[2]
    if not _convolves(a, outputs) or inputs % VECTOR or outputs % VECTOR:
        return torch.bmm(a, b, out=out((features, rows, outputs)))
    image = a.transpose(0, 1).reshape(1, 1, rows, -1).permute(0, 3, 1, 2)
    matrices = b.mT.reshape(-1, inputs, 1, 1)
    image = functional.conv2d(image, matrices, groups=features)
    return image.permute(2, 3, 0, 1).reshape(rows, features, outputs).transpose(0, 1)


def _convolves(x, outputs):
    return (
        x.device.type == "cpu"
        and x.ndim == 3
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.compiler.is_compiling()
        and x.numel() * outputs >= FEWEST_MULTIPLICATIONS
    )


def _as_image(x):
    """One line of an image, `(batch, features, 1, length)`; its memory is that of the rows."""
    return x.mT.unsqueeze(2)
