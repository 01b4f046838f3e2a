"""The gradient of broadcasting."""

from keras import ops


def sum_to(x, shape):
    """Returns x summed over the axes along which a tensor of `shape` was broadcast to it.

    Args:
        x: tensor.
        shape: tuple of int. What broadcasts to the shape of x.

    Returns:
        Tensor of `shape`.

    Example:
        ```python
        sum_to(ops.ones((4, 3, 2)), (1, 2))  # [[12, 12]]
        ```
    """
    extra = len(x.shape) - len(shape)
    # All axes at once: XLA takes up to 100 times as long over the steps of a single row.
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1))
    x = ops.sum(x, axis=axes, keepdims=True) if axes else x
    return ops.squeeze(x, axis=tuple(range(extra))) if extra else x
