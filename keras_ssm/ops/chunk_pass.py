"""A bank of single-input single-output systems over chunks of T steps, as batched matmuls.

With K the kernel, and x the state before a chunk with inputs U,

    Y  = Toeplitz(K[0..T)) U + E_out x      E_out[i] = C dA^(i + 1)
    x' = dA^T x + E_in U                    E_in[j]  = dA^(T - 1 - j) dB

These are the four steps of section 6 of [Mamba-2](https://arxiv.org/abs/2405.21060), for systems
that do not change with time. The second direction of a bidirectional bank reads later samples.
"""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.chunk_matrices import ChunkMatrices
from keras_ssm.ops.chunks import chunk_toeplitz, merge_channels, sizes
from keras_ssm.ops.powers import with_skip
from keras_ssm.ops.recurrence import state_passing
from keras_ssm.types import Tensor


def chunk_matrices(
    bank, T: int, bidirectional: bool = False, D: Tensor = None, single: bool = False
) -> ChunkMatrices:
    """Returns the `ChunkMatrices` of a bank.

    Args:
        bank: `DiagonalBank` or `DenseBank`, as for `chunked`.
        T: int. Steps in a chunk.
        bidirectional: bool.
        D: tensor `(channels, features)` or `None`. Skip.
        single: bool. Whether there is a single chunk without a state.
    """
    powers = bank.into_state(T)  # dA^t dB, (features, states, T)
    K = exact_einsum("chn,hnt->hct", bank.readout, powers)
    past, earlier = bank.readout, ops.zeros_like(K[..., :-1])
    if bidirectional:
        channels = K.shape[1] // 2
        past, future = bank.readout[:channels], bank.readout[channels:]
        K, earlier = K[:, :channels], ops.flip(K[:, channels:, :-1], axis=-1)
    if D is not None:
        K = with_skip(K, ops.transpose(D))
    toeplitz = chunk_toeplitz(K, earlier)
    if single:
        return ChunkMatrices(toeplitz)
    E_in = ops.transpose(ops.flip(powers, axis=-1), (0, 2, 1))
    E_out = merge_channels(bank.from_state(past, 1, T))
    matrices = ChunkMatrices(toeplitz, bank.transition(T), E_in, E_out)
    if not bidirectional:
        return matrices
    rows = ops.flip(bank.from_state(future, 0, T), axis=-1)
    return matrices._replace(later_E_in=ops.flip(E_in, axis=1), later_E_out=merge_channels(rows))


def chunk_pass(u: Tensor, matrices: ChunkMatrices, initial: Tensor = None) -> tuple:
    """Computes the outputs of chunks, and the states between them.

    Args:
        u: tensor `(features, batch, chunks, T)`.
        matrices: `ChunkMatrices`.
        initial: tensor `(features, batch, states)` or `None` (zero). State before the first chunk.

    Returns:
        Tuple `(y, before, last)`: `(features, batch, chunks, channels * T)`, the state before each
        chunk, and the one after the last; both `None` for a single chunk without a state.
    """
    features, batch, chunks, T = sizes(u)
    batch = ops.shape(u)[1] if batch == chunks == -1 else batch

    def in_rows(x):
        return ops.reshape(x, (features, -1, x.shape[-1]))

    def in_chunks(x):
        return ops.reshape(x, (features, batch, chunks, x.shape[-1]))

    u = backend.contiguous(in_rows(u))
    y = backend.matmul(u, matrices.toeplitz)  # 1. within chunks
    if matrices.transition is None:
        return in_chunks(y), None, None
    added = in_chunks(backend.matmul(u, matrices.E_in))  # 2. the state that each chunk adds
    start = ops.zeros_like(added[:, :, 0]) if initial is None else initial
    before, last = state_passing(matrices.transition, added, start, steps=T)  # 3. across chunks
    y = y + backend.matmul(in_rows(before), matrices.E_out)  # 4. outputs of the states
    if matrices.later_E_in is not None:
        added = in_chunks(backend.matmul(u, matrices.later_E_in))
        later, _ = state_passing(matrices.transition, added, start, reverse=True, steps=T)
        y = y + backend.matmul(in_rows(later), matrices.later_E_out)
    return in_chunks(y), before, last
