"""A sequence in chunks, and the matrices of one chunk in the layout of its products."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known
from keras_ssm.ops.toeplitz import toeplitz


def cut(u, T):
    """Pads to whole chunks and moves the features in front."""
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


def glue(y, length, T):
    """Undoes `cut` for outputs `(features, batch, chunks, channels * T)`."""
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


def chunk_response(K, earlier):
    """The Toeplitz matrix of a chunk, channel after channel, `(features, T, channels * T)`.

    K `(features, channels, T)` are the kernel entries from lag 0 on, `earlier` those of lags
    -(T - 1) to -1.
    """
    matrices = toeplitz(ops.concatenate([earlier, K], axis=-1))  # (features, channels, T, T)
    features, channels, T, _ = matrices.shape
    return ops.reshape(ops.transpose(matrices, (0, 2, 1, 3)), (features, T, channels * T))


def merge_channels(rows):
    """`(channels, features, states, T)` to a matrix `(features, states, channels * T)`."""
    channels, features, states, T = rows.shape
    return ops.reshape(ops.transpose(rows, (1, 2, 0, 3)), (features, states, channels * T))
