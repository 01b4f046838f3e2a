"""The chunked evaluation for one block of features after another, which a CPU's caches hold.

A block makes its own matrices from slices of the bank and is computed anew for the gradient, so
that only the inputs are kept.
"""

from keras import ops

from keras_ssm.ops import backend, exporting
from keras_ssm.ops.chunk_pass import chunk_matrices, chunk_pass
from keras_ssm.ops.exporting import known

# On a CPU, features are computed in blocks of about this many numbers, which fit its caches;
# below the second size all at once. `docs/performance.md` has the measurements.
BLOCK_SAMPLES = 2**18
SMALLEST_IN_BLOCKS = 2**19
USUAL_BATCH = 8  # where the batch is not known in advance


def block_size(u) -> int:
    """The number of features that are computed at a time; 0 for all of them."""
    batch, length, features = u.shape
    if known(length) is None or not exporting.loops_allowed() or not backend.runs_in_blocks():
        return 0
    samples = (known(batch) or USUAL_BATCH) * length
    if samples * features < SMALLEST_IN_BLOCKS:
        return 0
    largest = max(1, BLOCK_SAMPLES // samples)
    size = max(n for n in range(1, features + 1) if features % n == 0 and n <= largest)
    return 0 if size == features else size


def in_blocks(u, bank, T, bidirectional, D, initial, size) -> tuple:
    """Outputs and last state of a sequence, `size` features after another.

    Args:
        u: tensor `(batch, length, features)`.
        bank: `DiagonalBank` or `DenseBank`.
        T: int. Steps in a chunk.
        bidirectional: bool.
        D: tensor `(channels, features)` or `None`.
        initial: tensor `(features, batch, states)` or `None`.
        size: int. What `block_size` returned.

    Returns:
        Tuple `(y, last)`: `(batch, length, channels * features)` and `(features, batch, states)`.
    """
    length, features = u.shape[1:]
    # A transposition is several times as fast where XLA does not fuse it with other operations.
    tensors = {"u": ops.transpose(u, (2, 0, 1)), "initial": initial}
    by_feature, fixed, rebuild = bank.by_feature(T), None, None
    if by_feature is None:
        tensors["matrices"] = chunk_matrices(bank, T, bidirectional, D)
    else:
        tensors["bank"], fixed = by_feature
        tensors["D"], rebuild = None if D is None else ops.transpose(D), bank.of_features
    static = {"T": T, "bidirectional": bidirectional, "rebuild": rebuild}
    y, state = backend.map_blocks(_block, tensors, fixed, size, **static)
    if y.shape[2] == length:
        return ops.transpose(y, (1, 2, 0)), state
    y = ops.transpose(ops.reshape(y, (features, -1, y.shape[2] // length, length)), (1, 3, 2, 0))
    return ops.reshape(y, (-1, length, y.shape[2] * features)), state


def _block(tensors, fixed, T, bidirectional, rebuild):
    """A block of features: `(features, batch, length)` to outputs, channel after channel."""
    u, initial = tensors["u"], tensors["initial"]
    features, _, length = u.shape
    if rebuild is None:
        matrices = tensors["matrices"]
    else:
        D = None if tensors["D"] is None else ops.transpose(tensors["D"])
        matrices = chunk_matrices(rebuild(tensors["bank"], fixed, T), T, bidirectional, D)
    chunks = -(-length // T)
    u = backend.pad(u, [(0, 0), (0, 0), (0, chunks * T - length)])
    y, _, last = chunk_pass(ops.reshape(u, (features, -1, chunks, T)), matrices, initial)
    channels = y.shape[3] // T
    if channels > 1:
        y = ops.transpose(ops.reshape(y, (features, -1, chunks, channels, T)), (0, 1, 3, 2, 4))
    y = ops.reshape(y, (features, -1, channels, chunks * T))[..., :length]
    return ops.reshape(y, (features, -1, channels * length)), last
