"""Short causal convolutions, each feature with its own kernel, whose state is their last inputs."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.valid_first import back_in_place, valid_first


def causal_conv(x, kernel, bias=None, before=None, mask=None, activation=None):
    """Computes y_t = bias + sum_k kernel_k x_(t - K + 1 + k) over the valid samples of a row.

    What a mask covers is not there at all: a valid sample meets the K - 1 valid ones before it.

    Args:
        x: tensor `(batch, length, features)`, in any dtype.
        kernel: tensor `(K, features)`, in the dtype of the result. The last entry multiplies the
            current sample.
        bias: tensor `(features,)` or `None`.
        before: tensor `(batch, K - 1, features)` or `None` (zero). Samples before the first.
        mask: boolean tensor `(batch, length)` or `None`, True where valid.
        activation: `"silu"` or `None`. What is applied to y.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)`, and the last K - 1 samples, as `before`.

    Example:
        ```python
        x = ops.reshape(ops.arange(1.0, 4.0), (1, 3, 1))
        y, last = causal_conv(x, ops.ones((2, 1)))  # 1, 3, 5; last is 3
        ```

    Reference:
        [Mamba](https://arxiv.org/abs/2312.00752), section 3.4.
    """
    width = kernel.shape[0]
    if mask is not None:
        x, counts = valid_first(x, mask)
    conv, y = {None: _conv, "silu": _conv_silu}[activation], None
    if activation == "silu":
        y = backend.fused_conv_silu(x, kernel, bias, before, conv)
    y = conv(x, kernel, bias, before) if y is None else y
    if mask is None:
        return y, _with(before, x[:, -(width - 1) :], kernel)[:, -(width - 1) :]
    after = ops.convert_to_tensor(np.arange(width - 1, dtype="int32"))
    last = backend.take_steps(_with(before, x, kernel), counts[:, -1:] + after)
    return back_in_place(y, counts), last


def _conv(x, kernel, bias, before):
    width, length = kernel.shape[0], x.shape[1] or ops.shape(x)[1]
    x = _with(before, x, kernel)
    y = sum(x[:, k : k + length] * kernel[k] for k in range(width))
    return y if bias is None else y + bias


def _conv_silu(x, kernel, bias, before):
    return ops.silu(_conv(x, kernel, bias, before))


def _with(before, x, kernel):
    """x with the samples before it, or zeros, in the dtype of the kernel."""
    x = ops.cast(x, kernel.dtype)
    if before is None:
        before = ops.zeros_like(ops.repeat(x[:, :1], kernel.shape[0] - 1, axis=1))
    return ops.concatenate([before, x], axis=1)


def causal_conv_step(x, kernel, bias, before):
    """`causal_conv` of one sample `(batch, features)`."""
    window = ops.concatenate([before, x[:, None]], axis=1)
    y = ops.sum(window * kernel, axis=1)
    return y if bias is None else y + bias, window[:, 1:]
