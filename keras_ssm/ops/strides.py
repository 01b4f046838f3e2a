"""Windows of a sequence that overlap, at every `stride` samples, and the mask of their steps."""

from keras import ops

from keras_ssm.ops import backend


def windows(x, start, steps, width, stride):
    """Cuts windows out of every row.

    Args:
        x: tensor `(batch, length, features)`, long enough for all that is read of it.
        start: int tensor `(batch,)`. Place of the first sample of each row's first window.
        steps: int. Number of windows.
        width: int. Samples of a window.
        stride: int. Samples from one window to the next, at most `width`.

    Returns:
        Tensor `(batch, steps, width * features)`, the samples of a window in order.
    """
    rows, features = ops.shape(x)[0], x.shape[-1]
    places = ops.expand_dims(start, 1) + ops.arange(0, (steps - 1) * stride + width, dtype="int32")
    x = backend.take_steps(x, places)
    blocks = -(-width // stride)
    more = blocks * stride - width
    x = ops.pad(x, [[0, 0], [more, 0], [0, 0]]) if more else x
    x = ops.reshape(x, (rows, steps + blocks - 1, stride * features))
    x = ops.concatenate([x[:, i : i + steps] for i in range(blocks)], axis=-1)
    return x[..., more * features :]


def from_first_valid(mask, stride):
    """Samples before the first valid one that are left out, so that strides begin with it.

    Args:
        mask: boolean tensor `(batch, length)`.
        stride: int.

    Returns:
        Int tensor `(batch,)`, below `stride`.
    """
    before = ops.cumsum(ops.cast(mask, "int32"), axis=1) == 0
    count = ops.sum(ops.cast(before, "int32"), axis=1)
    return ops.mod(count, stride)


def strided_mask(mask, stride):
    """The mask of the steps of a whole sequence; see `ConvEncoder`.

    Args:
        mask: boolean tensor `(batch, length)`.
        stride: int.

    Returns:
        Boolean tensor `(batch, length // stride)`.
    """
    length = mask.shape[1] or ops.shape(mask)[1]
    steps = length // stride
    padded = ops.pad(ops.cast(mask, "int32"), [[0, 0], [0, stride - 1]])
    start = from_first_valid(mask, stride)
    mask_windows = windows(ops.expand_dims(padded, -1), start, steps, stride, stride)
    # After each step some sample must be valid, or the last of its own: it is then complete.
    places = ops.arange(0, length, dtype="int32")
    last = ops.max(ops.where(mask, places, -ops.ones_like(places)), axis=1) - start
    ends = stride * (ops.arange(0, steps, dtype="int32") + 1)
    complete = ends <= ops.expand_dims(last, 1) + 1
    return ops.logical_and(ops.max(mask_windows, axis=-1) > 0, complete)
