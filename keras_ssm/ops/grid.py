"""Convolutions over several axes with outer products of kernels, as one matmul for each axis."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.chunks import toeplitz
from keras_ssm.ops.exporting import known
from keras_ssm.types import Tensor


def axis_matrices(kernel: Tensor, bidirectional: bool = False) -> list:
    """Returns the matrices by which a kernel convolves a whole axis, one for each channel.

    Args:
        kernel: tensor `(channels, features, steps)`. Entries from lag 0 on; if bidirectional
            `(2 channels, features, steps)`, the second half from lag -1 backwards.
        bidirectional: bool. Whether later samples contribute.

    Returns:
        List of tensors `(features, steps, steps)`, with inputs on the second axis.

    Example:
        ```python
        axis_matrices(ops.ones((1, 1, 3)))  # one matrix, with ones from the diagonal on
        ```
    """
    earlier = ops.zeros_like(kernel[..., :-1])
    if bidirectional:
        kernel, later = ops.split(kernel, 2, axis=0)
        earlier = ops.flip(later[..., :-1], axis=-1)
    matrices = toeplitz(ops.concatenate([earlier, kernel], axis=-1))
    return [matrices[c] for c in range(kernel.shape[0])]


def grid_conv(u: Tensor, matrices: list) -> list:
    """Convolves each feature of a grid along every axis.

    Args:
        u: tensor `(batch, *sizes, features)`. Inputs. The sizes are known.
        matrices: list of lists of tensors `(features, size, size)`: for each axis what
            `axis_matrices` returned, with as many channels along all axes.

    Returns:
        List of a tensor of the shape of u for each channel.

    Example:
        ```python
        sums = axis_matrices(ops.ones((1, 1, 3)))
        (y,) = grid_conv(ops.ones((1, 3, 3, 1)), [sums, sums])  # 9 at the last place
        ```

    Reference:
        [S4ND](https://arxiv.org/abs/2210.06583), section 3.2.
    """
    features, sizes = u.shape[-1], u.shape[1:-1]
    # With the first axis before the batch, its product needs no other layout than the last one's.
    rows = ops.reshape(ops.swapaxes(u, 0, 1), (-1, features))
    x = ops.reshape(backend.transposed(rows), (features, sizes[0], -1, *sizes[1:]))
    outputs = []
    for channel in zip(*matrices, strict=True):
        y = ops.reshape(_along_all(x, channel), (features, -1))
        y = ops.reshape(backend.transposed(y), (sizes[0], -1, *sizes[1:], features))
        outputs.append(ops.swapaxes(y, 0, 1))
    return outputs


def _along_all(x, matrices):
    """`(features, first, batch, *others)`, along all axes."""
    features, size, end = *x.shape[:2], len(x.shape) - 1
    first, *others = matrices
    for i, matrix in enumerate(others):
        place = i + 3
        x = x if place == end else ops.swapaxes(x, place, end)
        shape = _sizes(x)
        x = backend.matmul(ops.reshape(x, (features, -1, shape[-1])), matrix)
        x = ops.reshape(x, shape)
        x = x if place == end else ops.swapaxes(x, place, end)
    rows = ops.reshape(x, (features, size, -1))
    return backend.matmul(ops.transpose(first, (0, 2, 1)), rows)


def _sizes(x):
    """The shape, with -1 for a batch that is not known."""
    return tuple(-1 if known(n) is None else n for n in x.shape)
