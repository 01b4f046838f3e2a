"""The valid samples of each row in front, for what a mask leaves out wherever it stands."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.types import Tensor


def valid_first(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the valid samples of each row in front of the others, in their order.

    Args:
        x: tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid.

    Returns:
        Tuple `(x, counts)`: the samples, and how many valid ones a row has up to each step,
        integers `(batch, length)`.

    Example:
        ```python
        x = ops.reshape(ops.arange(3.0), (1, 3, 1))
        x, counts = valid_first(x, ops.convert_to_tensor([[False, True, True]]))  # 1, 2, 0
        ```
    """
    counts = ops.cumsum(ops.cast(mask, "int32"), axis=1)
    steps = ops.cumsum(ops.ones_like(ops.cast(mask, "int32")), axis=1)
    order = backend.argsort(ops.where(mask, steps, steps + steps[:, -1:]))
    return backend.take_steps(x, order), counts


def back_in_place(y: Tensor, counts: Tensor) -> Tensor:
    """Undoes `valid_first` for what was computed of its samples; other steps repeat one.

    Args:
        y: tensor `(batch, length, features)`.
        counts: as `valid_first` returns them.

    Returns:
        Tensor `(batch, length, features)`.

    Example:
        ```python
        y = ops.reshape(ops.arange(3.0), (1, 3, 1))
        y = back_in_place(y, ops.convert_to_tensor([[0, 1, 2]]))  # 0, 0, 1
        ```
    """
    return backend.take_steps(y, ops.maximum(counts - 1, 0))
