"""The diagonal recurrence through the Fourier transform."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.powers import powers


def fft_scan(log_dA, inputs, initial=None):
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
    pad = lambda x: backend.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, size - length)])  # noqa: E731
    spectrum = pair.multiply(ops.fft(tuple(map(pad, v))), ops.fft(tuple(map(pad, K))))
    # There is no one-dimensional inverse in keras.ops: conj(F(conj(X))) / n is one.
    re, im = ops.fft(pair.conjugate(spectrum))
    scale = 1.0 / ops.cast(size, re.dtype)
    states = (re * scale)[..., :length], (-im * scale)[..., :length]
    if initial is not None:
        state = pair.multiply(pair.exp(log_dA), pair.split(initial))
        added = pair.multiply(tuple(part[..., None] for part in state), K)
        states = states[0] + added[0], states[1] + added[1]
    return pair.join(tuple(ops.transpose(part, (0, 2, 1)) for part in states))
