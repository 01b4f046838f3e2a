"""Sequences in chunks, and Toeplitz matrices in the layout of their products."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known
from keras_ssm.types import Tensor

DEFAULT_CHUNK_SIZE = 64


def even_chunk(length: int | None) -> int:
    """A chunk of at most the default size that leaves little padding: 129 steps are 3 of 43."""
    if length is None:
        return DEFAULT_CHUNK_SIZE
    return -(-length // -(-length // DEFAULT_CHUNK_SIZE))


def split_chunks(u: Tensor, T: int) -> Tensor:
    """Pads to whole chunks and moves the features in front, `(features, batch, chunks, T)`."""
    (batch, length), features = map(known, u.shape[:2]), u.shape[2]
    if length is None:
        chunks = (ops.shape(u)[1] + T - 1) // T
        u = backend.pad(u, [(0, 0), (0, T - 1), (0, 0)])[:, : chunks * T]
    else:
        chunks = -(-length // T)
        u = backend.pad(u, [(0, 0), (0, chunks * T - length), (0, 0)])
    if batch is None and length is None:
        batch = ops.shape(u)[0]
    u = ops.reshape(
        u, (-1 if batch is None else batch, -1 if length is None else chunks, T, features)
    )
    return ops.transpose(u, (3, 0, 1, 2))


def merge_chunks(y: Tensor, length: int | Tensor, T: int) -> Tensor:
    """Undoes `split_chunks` for outputs `(features, batch, chunks, channels * T)`."""
    features, batch, chunks, width = (known(n) for n in y.shape)
    channels = width // T
    if channels == 1:
        y = ops.transpose(y, (1, 2, 3, 0))
    else:
        y = ops.reshape(y, (features, -1, ops.shape(y)[2], channels, T))
        y = ops.transpose(y, (1, 2, 4, 3, 0))
    total = -1 if chunks is None else chunks * T
    lead = ops.shape(y)[0] if batch is None else batch
    return ops.reshape(y, (lead, total, channels * features))[:, :length]


def chunk_toeplitz(K: Tensor, earlier: Tensor) -> Tensor:
    """The Toeplitz matrix of a chunk, channel after channel, `(features, T, channels * T)`.

    K `(features, channels, T)` are the kernel entries from lag 0 on, `earlier` those of lags
    -(T - 1) to -1.
    """
    matrices = toeplitz(ops.concatenate([earlier, K], axis=-1))  # (features, channels, T, T)
    features, channels, T, _ = matrices.shape
    return ops.reshape(ops.transpose(matrices, (0, 2, 1, 3)), (features, T, channels * T))


def merge_channels(rows: Tensor) -> Tensor:
    """`(channels, features, states, T)` to a matrix `(features, states, channels * T)`."""
    channels, features, states, T = rows.shape
    return ops.reshape(ops.transpose(rows, (1, 2, 0, 3)), (features, states, channels * T))


def sizes(x: Tensor) -> tuple:
    """The shape, with -1 for what is not known."""
    return tuple(-1 if known(n) is None else n for n in x.shape)


def toeplitz(diagonals: Tensor) -> Tensor:
    """Returns matrices with the given diagonals, without a gather, whose gradient would scatter.

    Args:
        diagonals: tensor `(..., 2 n - 1)`. Entry `n - 1 + d` fills the diagonal on which the
            column index exceeds the row index by d.

    Returns:
        Tensor `(..., n, n)`.

    Example:
        ```python
        toeplitz(ops.convert_to_tensor([[0.0, 1.0, 2.0]]))  # [[[1, 2], [0, 1]]]
        ```
    """
    by_views = backend.toeplitz(diagonals)
    if by_views is not None:
        return by_views
    width = diagonals.shape[-1] + 1
    n, lead = width // 2, diagonals.shape[:-1]
    padded = backend.pad(diagonals, [(0, 0)] * len(lead) + [(0, 1)])
    # Rows of period 2n read with a stride of 2n - 1 shift by one place a row.
    rows = ops.broadcast_to(padded[..., None, :], (*lead, n, width))
    flat = ops.reshape(rows, (*lead, n * width))[..., : n * (width - 1)]
    return ops.reshape(flat, (*lead, n, width - 1))[..., n - 1 :]
