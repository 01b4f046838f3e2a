"""Long convolutions and diagonal recurrences through the Fourier transform."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.powers import powers, with_skip
from keras_ssm.types import Pair, Tensor


def fft_conv(u: Tensor, kernel: Tensor, bidirectional: bool = False, D: Tensor = None) -> Tensor:
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
    size = _fft_size(length + steps - (not bidirectional))
    kernel, later = kernel[:channels], kernel[channels:]
    if D is not None:
        kernel = with_skip(kernel, D)
    if bidirectional:
        # Negative lags are the last entries of a circular convolution.
        room = size - steps
        kernel = backend.pad(kernel, [(0, 0), (0, 0), (0, room)])
        kernel = kernel + backend.pad(ops.flip(later, axis=-1), [(0, 0), (0, 0), (room, 0)])
    y = backend.circular(ops.transpose(u, (0, 2, 1)), kernel, size)
    y = ops.transpose(y, (0, 3, 1, 2))  # (batch, length, channels, features)
    lead = ops.shape(y)[0] if y.shape[0] is None else y.shape[0]
    return ops.reshape(y, (lead, length, channels * features))


def _fft_size(least):
    """A length of at least so many; a power of two where that is known in advance."""
    return 1 << max(1, (least - 1).bit_length()) if isinstance(least, int) else least


def fft_scan(log_dA: Pair, inputs: Tensor, initial: Tensor = None) -> Tensor:
    """Returns the states x_t = sum_s dA^(t - s) v_s of a diagonal recurrence.

    Args:
        log_dA: pair of tensors `(modes,)`. Logarithm of the state transition.
        inputs: tensor `(batch, length, 2 modes)`. What each sample adds to the state.
        initial: tensor `(batch, 2 modes)` or `None` (zero). State before the first sample.

    Returns:
        Tensor `(batch, length, 2 modes)`.

    Example:
        ```python
        log_half = ops.convert_to_tensor([-0.6931472]), ops.zeros((1,))
        states = fft_scan(log_half, ops.ones((1, 3, 2)))  # 1, 1.5, 1.75 in both parts
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 2.4, on the modes of
        [S5](https://arxiv.org/abs/2208.04933).
    """
    length = inputs.shape[1]
    if length is None:
        length = ops.shape(inputs)[1]
        steps, size = ops.arange(0, length), 2 * length
    else:
        steps, size = np.arange(length), 1 << (2 * length - 1).bit_length()
    K = powers(log_dA, steps)  # (modes, length)
    v = tuple(ops.transpose(part, (0, 2, 1)) for part in pair.split(inputs))

    def transform(x):
        room = [(0, size - length)]
        return ops.fft(tuple(backend.pad(p, [(0, 0)] * (len(p.shape) - 1) + room) for p in x))

    spectrum = pair.multiply(transform(v), transform(K))
    # There is no one-dimensional inverse in keras.ops: conj(F(conj(X))) / n is one.
    re, im = ops.fft(pair.conjugate(spectrum))
    scale = 1.0 / ops.cast(size, re.dtype)
    states = (re * scale)[..., :length], (-im * scale)[..., :length]
    if initial is not None:
        state = pair.multiply(pair.exp(log_dA), pair.split(initial))
        added = pair.multiply(tuple(part[..., None] for part in state), K)
        states = states[0] + added[0], states[1] + added[1]
    return pair.join(tuple(ops.transpose(part, (0, 2, 1)) for part in states))
