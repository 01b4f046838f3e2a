"""Convolutions with a given kernel without a transform, and streams that keep the last inputs."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import Tensor


def direct_conv(u: Tensor, kernel: Tensor, bidirectional: bool = False) -> Tensor:
    """`fft_conv` as a sum over the kernel, without a transform and for any length.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        kernel: tensor `(channels, features, steps)`. Kernel entries from lag 0 on; if
            bidirectional `(2 channels, features, steps)`, the second half from lag -1
            backwards.
        bidirectional: bool. Whether later samples contribute.

    Returns:
        Tensor `(batch, length, channels * features)`.

    Example:
        ```python
        y = direct_conv(ops.ones((1, 4, 1)), ops.ones((1, 1, 4)))  # 1, 2, 3, 4
        ```
    """
    steps, later = kernel.shape[-1], 0
    taps = ops.flip(kernel, axis=-1)  # of the oldest sample first
    if bidirectional:
        half, later = kernel.shape[0] // 2, steps
        taps = ops.concatenate([taps[:half], kernel[half:]], axis=-1)
    channels, features = taps.shape[:2]
    padded = ops.pad(u, [(0, 0), (steps - 1, later), (0, 0)])
    weights = ops.transpose(taps, (2, 1, 0))  # (taps, features, channels)
    y = ops.depthwise_conv(padded, weights, padding="valid", data_format="channels_last")
    if channels == 1:
        return y
    length = u.shape[1] or ops.shape(u)[1]
    y = ops.reshape(y, (-1, length, features, channels))
    return ops.reshape(ops.swapaxes(y, 2, 3), (-1, length, channels * features))


def window_step(u: Tensor, state: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """Advances a convolution by one sample.

    Args:
        u: tensor `(batch, features)`. Inputs.
        state: tensor `(batch, features, steps - 1)`. The inputs before, the last one last.
        taps: tensor `(channels, features, steps)`. The kernel, lag 0 last.

    Returns:
        Tuple `(y, state)`: `(batch, channels * features)`, and the state after the sample.

    Example:
        ```python
        y, state = window_step(ops.ones((1, 1)), ops.zeros((1, 1, 2)), ops.ones((1, 1, 3)))
        # y 1, state 0, 1
        ```
    """
    window = ops.concatenate([state, u[..., None]], axis=-1)
    y = exact_einsum("bhk,chk->bch", window, taps)
    channels, features = taps.shape[:2]
    return ops.reshape(y, (-1, channels * features)), window[..., 1:]


def last_of_rows(u: Tensor, count: int, lengths: Tensor | None) -> Tensor:
    """The last inputs of each row, as a state of `window_step`.

    Args:
        u: tensor `(batch, count + length, features)`. The inputs, after `count` earlier ones.
        count: int.
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row. `None`
            means all of them.

    Returns:
        Tensor `(batch, features, count)`.

    Example:
        ```python
        u = ops.reshape(ops.arange(5.0), (1, 5, 1))
        last = last_of_rows(u, 2, ops.convert_to_tensor([1]))  # 1, 2
        ```
    """
    if lengths is None:
        total = u.shape[1] or ops.shape(u)[1]
        last = u[:, total - count :]
    else:
        places = np.arange(count, dtype="int32")
        index = ops.cast(lengths, "int32")[:, None] + ops.convert_to_tensor(places)
        last = backend.take_steps(u, index)
    return ops.transpose(last, (0, 2, 1))
