"""Causal convolutions with a few dozen taps, each feature with its own: chunks as matmuls."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.chunks import chunk_toeplitz, even_chunk, merge_chunks, sizes, split_chunks
from keras_ssm.ops.chunks import toeplitz as toeplitz_matrix
from keras_ssm.ops.exporting import known
from keras_ssm.types import Tensor


def short_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """Computes y_t = sum_j kernel_j u_(t - j).

    A chunk is at least as long as the kernel reaches back, so that an output needs its own chunk
    and the one before: a product with a Toeplitz matrix each. There is no transform.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        kernel: tensor `(features, taps)`. Entries from lag 0 on.

    Returns:
        Tensor `(batch, length, features)`.

    Example:
        ```python
        y = short_conv(ops.ones((1, 4, 1)), ops.ones((1, 2)))  # 1, 2, 2, 2
        ```
    """
    length, taps = known(u.shape[1]), kernel.shape[-1]
    T = max(even_chunk(length), taps - 1)
    T = T if length is None else min(T, length)
    K = _padded(kernel, T)[:, None]
    within = chunk_toeplitz(K, ops.zeros_like(K[..., 1:]))
    chunks = split_chunks(u, T)
    y = _product(chunks, within)
    if length is None or length > T:
        # The entry of lag T + d fills the diagonal d.
        across = toeplitz_matrix(_padded(kernel[:, 1:], 2 * T - 1))
        before = backend.pad(chunks, [(0, 0), (0, 0), (1, 0), (0, 0)])[:, :, :-1]
        y = y + _product(before, across)
    return merge_chunks(y, ops.shape(u)[1] if length is None else length, T)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Computes sum_n a_n b_(n + j) for each lag j from 0 on.

    Args:
        a, b: tensors `(features, taps)`.

    Returns:
        Tensor `(features, taps)`.

    Example:
        ```python
        one = ops.ones((1, 3))
        correlation(one, one)  # [[3, 2, 1]]
        ```
    """
    shifted = toeplitz_matrix(ops.concatenate([b, ops.zeros_like(b[:, 1:])], axis=-1))
    return backend.exact_einsum("hn,hnj->hj", ops.flip(a, axis=-1), shifted)


def _padded(kernel, count):
    """The kernel cut or filled up to so many entries."""
    taps = kernel.shape[-1]
    return backend.pad(kernel[:, :count], [(0, 0), (0, max(count - taps, 0))])


def _product(chunks, matrices):
    features, batch, count, T = sizes(chunks)
    batch = ops.shape(chunks)[1] if batch == count == -1 else batch
    rows = backend.contiguous(ops.reshape(chunks, (features, -1, T)))
    return ops.reshape(backend.matmul(rows, matrices), (features, batch, count, T))
