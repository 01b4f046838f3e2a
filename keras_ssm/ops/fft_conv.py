"""Long convolutions through the Fourier transform."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.powers import with_skip


def fft_conv(u, kernel, bidirectional=False, D=None):
    """Convolves each feature of a sequence with its own kernel.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        kernel: tensor `(channels, features, steps)`. Kernel entries from lag 0 on; if
            bidirectional `(2 channels, features, steps)`, the second half from lag -1
            backwards.
        bidirectional: bool. Whether later samples contribute.
        D: tensor `(channels, features)` or `None`. Skip: what a sample adds to its own output.

    Returns:
        Tensor `(batch, length, channels * features)`.

    Example:
        ```python
        y = fft_conv(ops.ones((1, 4, 1)), ops.ones((1, 1, 4)))  # 1, 2, 3, 4
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 2.4.
    """
    length = u.shape[1] or ops.shape(u)[1]
    steps = kernel.shape[-1] or ops.shape(kernel)[-1]
    channels, features = kernel.shape[0] // (2 if bidirectional else 1), kernel.shape[1]
    size = _fft_size(length, steps)
    kernel, later = kernel[:channels], kernel[channels:]
    if D is not None:
        kernel = with_skip(kernel, D)
    if bidirectional:
        # Negative lags stand at the end of the circle.
        room = size - steps
        kernel = backend.pad(kernel, [(0, 0), (0, 0), (0, room)])
        kernel = kernel + backend.pad(ops.flip(later, axis=-1), [(0, 0), (0, 0), (room, 0)])
    u_re, u_im = ops.rfft(ops.transpose(u, (0, 2, 1)), fft_length=size)
    k_re, k_im = ops.rfft(kernel, fft_length=size)
    u_re, u_im = u_re[:, None], u_im[:, None]
    y = ops.irfft((u_re * k_re - u_im * k_im, u_re * k_im + u_im * k_re), fft_length=size)
    y = ops.transpose(y[..., :length], (0, 3, 1, 2))  # (batch, length, channels, features)
    lead = ops.shape(y)[0] if y.shape[0] is None else y.shape[0]
    return ops.reshape(y, (lead, length, channels * features))


def _fft_size(length, steps):
    """A length without wrap-around; a power of two where it is known in advance."""
    if isinstance(length, int) and isinstance(steps, int):
        return 1 << (length + steps - 1).bit_length()
    return length + steps
