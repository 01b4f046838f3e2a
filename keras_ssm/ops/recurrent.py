"""A bank of diagonal systems applied sample by sample."""

from keras import ops

from keras_ssm.ops import pair
from keras_ssm.ops.backend import sequential


def step(u, state, dA, dB, C):
    """Advances a bank of diagonal systems by one sample.

    Args:
        u: tensor `(batch, features)`. Inputs.
        state: tensor `(batch, features, 2 modes)`. Real parts, then imaginary parts.
        dA, dB: tensors `(features, 2 modes)`. Discrete transition and input vectors.
        C: tensor `(channels, features, 2 modes)`. Output vectors.

    Returns:
        Tuple `(y, state)`: `(batch, channels * features)` and `(batch, features, 2 modes)`.

    Example:
        ```python
        half = ops.convert_to_tensor([[0.5, 0.0]])  # one feature, one mode: 0.5 + 0i
        y, state = step(ops.ones((1, 1)), ops.zeros((1, 1, 2)), half, half, half[None])
        # state 0.5, y = 2 Re(0.5 * 0.5) = 0.5
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3.
    """
    re, im = pair.multiply(pair.split(dA), pair.split(state))
    dB_re, dB_im = pair.split(dB)
    re, im = re + dB_re * u[..., None], im + dB_im * u[..., None]
    C_re, C_im = pair.split(C)
    # (batch, channels, features)
    y = 2.0 * ops.sum(re[:, None] * C_re - im[:, None] * C_im, axis=-1)
    channels, features = y.shape[1:]
    return ops.reshape(y, (-1, channels * features)), pair.join((re, im))


def recurrent(u, log_dA, dB, C, initial_state=None, lengths=None):
    """Applies a bank of diagonal systems with one `step` per sample.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        log_dA, dB, C: pairs of tensors, as for `chunked`.
        initial_state: tensor `(batch, features, 2 modes)` or `None` (zero).
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row, for
            the final state. `None` means all of them.

    Returns:
        Tuple `(y, state)`: `(batch, length, channels * features)` and
        `(batch, features, 2 modes)`.
    """
    dA, dB, C = pair.join(pair.exp(log_dA)), pair.join(dB), pair.join(C)
    if initial_state is None:
        initial_state = ops.zeros_like(u[:, 0, :, None]) + ops.zeros_like(dA)
    steps = ops.transpose(u, (1, 0, 2))
    if lengths is None:
        valid = ops.ones_like(steps[..., :1])
    else:
        t = ops.arange(0, u.shape[1] or ops.shape(u)[1])[:, None]
        valid = ops.cast(t < ops.cast(lengths, t.dtype), u.dtype)[..., None]

    def advance(carry, sample):
        state, last = carry
        y, state = step(sample[..., 1:], state, dA, dB, C)
        return (state, ops.where(sample[..., :1, None] > 0, state, last)), y

    samples = ops.concatenate([valid, steps], axis=-1)  # (length, batch, 1 + features)
    (_, state), y = sequential(advance, (initial_state, initial_state), samples)
    return ops.transpose(y, (1, 0, 2)), state
