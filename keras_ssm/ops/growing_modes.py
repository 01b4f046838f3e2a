"""Modes whose kernel grows towards its last entry, as a softmax over a fixed length has them."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.chunks import (
    chunk_toeplitz,
    even_chunk,
    merge_channels,
    merge_chunks,
    split_chunks,
)
from keras_ssm.ops.powers import powers
from keras_ssm.types import Pair, Tensor


def growing_chunked(u: Tensor, log_decay: Pair, C: Pair, chunk_size: int | None = None) -> Tensor:
    """Convolves each feature with K[l] = 2 Re(C a^(L - 1 - l)), a = exp(log_decay), L the length.

    The modes grow by 1/a a step. Seen from the end they decay: with chunks U_m of T steps

        Y_m = Toeplitz(K[0..T)) U_m + a^(L - T - m T) E_out x_m     E_out[i] = C a^(T - 1 - i)
        x_m = sum over m' < m of a^(m' T) E_in U_m'                 E_in[j]  = a^j

    and no factor exceeds 1.

    Args:
        u: tensor `(batch, length, features)`. The length must be known.
        log_decay: pair of tensors `(features, modes)`, with real part at most 0.
        C: pair of tensors `(channels, features, modes)`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.

    Returns:
        Tensor `(batch, length, channels * features)`.

    Example:
        ```python
        half = ops.convert_to_tensor([[-0.6931472]]), ops.zeros((1, 1))  # log 0.5
        C = 0.5 * ops.ones((1, 1, 1)), ops.zeros((1, 1, 1))
        growing_chunked(ops.ones((1, 3, 1)), half, C)  # kernel 0.25, 0.5, 1
        ```

    Reference:
        [DSS](https://arxiv.org/abs/2203.14343), proposition 1.a and appendix A.2.
    """
    length = u.shape[1]
    T = min(chunk_size or even_chunk(length), length)
    whole, rest = divmod(length, T)
    u_chunks = split_chunks(u, T)  # (features, batch, chunks, T)
    late = powers(log_decay, length - 1.0 - np.arange(T))
    K = _rows(C, late)  # (channels, features, 2 modes, T)
    K = ops.transpose(ops.sum(K[:, :, : log_decay[0].shape[-1]], axis=2), (1, 0, 2))
    y = backend.einsum("hbmt,htk->hbmk", u_chunks, chunk_toeplitz(K, ops.zeros_like(K[..., :-1])))
    if length == T:
        return merge_chunks(y, length, T)

    table = powers(log_decay, np.arange(T))
    E_in = ops.transpose(ops.concatenate(table, axis=1), (0, 2, 1))
    added = pair.split(exact_einsum("hbmt,htn->hbmn", u_chunks, E_in))
    starts = np.arange(u_chunks.shape[2]) * T
    added = pair.multiply(added, _by_chunk(log_decay, starts))
    carried = tuple(backend.cumsum(part, axis=2) - part for part in added)
    weights = _by_chunk(log_decay, np.maximum(length - T - starts, 0))
    carried = pair.join(pair.multiply(carried, weights))
    E_out = ops.flip(_rows(C, table), axis=-1)
    read = backend.einsum("hbmn,hnk->hbmk", carried[:, :, :whole], merge_channels(E_out))
    if rest:
        padding = [(0, 0)] * 3 + [(0, T - rest)]
        tail = merge_channels(backend.pad(E_out[..., T - rest :], padding))
        last = backend.einsum("hbmn,hnk->hbmk", carried[:, :, whole:], tail)
        read = ops.concatenate([read, last], axis=2)
    return merge_chunks(y + read, length, T)


def _rows(C, table):
    """2 Re(C a^t x) as rows on real states, `(channels, features, 2 modes, steps)`."""
    re, im = pair.multiply(tuple(part[..., None] for part in C), table)
    return 2.0 * ops.concatenate([re, -im], axis=2)


def _by_chunk(log_decay, exponents):
    """Powers for each chunk, broadcast over the batch: `(features, 1, chunks, modes)`."""
    table = powers(log_decay, exponents)
    return tuple(ops.transpose(part, (0, 2, 1))[:, None] for part in table)
