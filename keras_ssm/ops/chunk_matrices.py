from typing import NamedTuple

from keras_ssm.types import Tensor


class ChunkMatrices(NamedTuple):
    """The matrices by which chunks of T steps are computed.

    Args:
        toeplitz: tensor `(features, T, channels * T)`. A chunk's own inputs to its outputs.
        transition: tensor `(features, states)` or `(features, states, states)`, as
            `state_passing` takes it. The state before a chunk to that after it. `None` for a
            single chunk without a state, which has nothing that follows here either.
        E_in: tensor `(features, T, states)`. A chunk's inputs to the state after it.
        E_out: tensor `(features, states, channels * T)`. The state before a chunk to its outputs.
        later_E_in: tensor as `E_in`, or `None`: for the state that later chunks give to earlier
            ones.
        later_E_out: tensor as `E_out`, or `None`.

    Example:
        ```python
        T, states = 8, 4
        ChunkMatrices(ops.ones((1, T, T)), E_in=ops.ones((1, T, states)))
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6.
    """

    toeplitz: Tensor
    transition: Tensor = None
    E_in: Tensor = None
    E_out: Tensor = None
    later_E_in: Tensor = None
    later_E_out: Tensor = None
