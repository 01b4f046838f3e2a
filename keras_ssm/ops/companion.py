"""Systems with a companion matrix: ones below the diagonal and numbers in the last column."""

import numpy as np
from keras import ops

from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.dense_bank import DenseBank
from keras_ssm.types import Tensor


def companion_matrix(a: Tensor) -> Tensor:
    """Returns the companion matrices with these last columns.

    Args:
        a: tensor `(features, states)`.

    Returns:
        Tensor `(features, states, states)`: ones below the diagonal, `a` in the last column.

    Example:
        ```python
        companion_matrix(ops.convert_to_tensor([[3.0, 4.0]]))  # [[[0, 3], [1, 4]]]
        ```
    """
    states = a.shape[-1]
    shift = ops.convert_to_tensor(np.eye(states, k=-1), dtype=a.dtype)
    last = ops.convert_to_tensor(np.eye(states)[-1], dtype=a.dtype)
    return shift + a[..., None] * last


class CompanionBank(DenseBank):
    """Companion single-input single-output systems, one a feature: a step is O(states).

    Every feature runs x' = A x + dB u, y = C x', where A moves the state by one place and adds
    `a` times its last entry. Chunks are those of a `DenseBank`.

    Args:
        a: tensor `(features, states)`. Last columns of the matrices A.
        dB: tensor `(features, states)`. Input vectors.
        C: tensor `(channels, features, states)`. Output vectors.

    Example:
        ```python
        half = 0.5 * ops.ones((1, 1))
        bank = keras_ssm.ops.CompanionBank(half, ops.ones((1, 1)), ops.ones((1, 1, 1)))
        keras_ssm.ops.kernel(bank, 3)  # 1, 0.5, 0.25
        ```

    Reference:
        [SpaceTime](https://arxiv.org/abs/2303.09489), section 3.1.
    """

    def __init__(self, a: Tensor, dB: Tensor, C: Tensor):
        identity = ops.convert_to_tensor(np.eye(a.shape[-1]), dtype=a.dtype)
        super().__init__(companion_matrix(a) - identity, dB, C)
        self.a = a

    def matrices(self):
        """Returns `(a, dB, C)`."""
        return self.a, self.dB, self.C

    def advance(self, state, steps, most=None):
        if isinstance(steps, int) and steps == 1:
            return companion_move(state, self.a[:, None])
        return super().advance(state, steps, most)


def companion_move(state: Tensor, a: Tensor) -> Tensor:
    """Returns A x for companion matrices A, without the matrices.

    Args:
        state: tensor `(..., states)`.
        a: tensor that broadcasts against it. Last columns of the matrices.

    Returns:
        Tensor `(..., states)`.

    Example:
        ```python
        companion_move(ops.convert_to_tensor([1.0, 2.0]), 0.5)  # 0 + 0.5 * 2, 1 + 0.5 * 2
        ```
    """
    last = state[..., -1:]
    return ops.concatenate([ops.zeros_like(last), state[..., :-1]], axis=-1) + a * last


def companion_step(
    u: Tensor, state: Tensor, a: Tensor, dB: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """Advances a bank of companion systems by one sample.

    Args:
        u: tensor `(batch, features)`. Inputs.
        state: tensor `(batch, features, states)`.
        a: tensor `(features, states)`. Last columns of the matrices.
        dB: tensor `(features, states)`. Input vectors.
        C: tensor `(channels, features, states)`. Output vectors.

    Returns:
        Tuple `(y, state)`: `(batch, channels * features)` and `(batch, features, states)`.

    Example:
        ```python
        one = ops.ones((1, 1))
        y, state = companion_step(one, one[None], 0.5 * one, one, one[None])  # 1.5, 1.5
        ```

    Reference:
        [SpaceTime](https://arxiv.org/abs/2303.09489), section 3.1.
    """
    state = companion_move(state, a) + dB * u[..., None]
    y = exact_einsum("bhn,chn->bch", state, C)
    channels, features = y.shape[1:]
    return ops.reshape(y, (-1, channels * features)), state
