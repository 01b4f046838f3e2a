"""Sequential ground truth in complex arithmetic, written from the definitions alone."""

from keras import ops

from keras_ssm.ops.backend import sequential


def to_complex(re, im):
    """Returns re + i im as a complex tensor."""
    return ops.view_as_complex(ops.stack([re, im], axis=-1))


def discretize(A, B, dt, discretization):
    """Returns complex (dA, dB) of x' = A x + B u, straight from the formulas.

    Args:
        A, B: complex tensors `(features, modes)`.
        dt: complex tensor `(features, 1 or modes)`.
        discretization: str. `"zoh"` or `"bilinear"`.

    Returns:
        Tuple of complex tensors `(features, modes)`.
    """
    z = ops.multiply(dt, A)
    if discretization == "zoh":
        dA = ops.exp(z)
        return dA, ops.divide(ops.multiply(ops.subtract(dA, 1), B), A)
    half = ops.divide(z, 2)
    below = ops.subtract(1, half)
    return ops.divide(ops.add(1, half), below), ops.divide(ops.multiply(dt, B), below)


def naive(u, dA, dB, C, initial_state=None, bidirectional=False):
    """Applies a bank of diagonal systems one sample at a time.

    Args:
        u: real tensor `(batch, length, features)`.
        dA, dB: complex tensors `(features, modes)`.
        C: complex tensor `(channels, features, modes)`, `(2 channels, ...)` if bidirectional.
        initial_state: complex tensor `(batch, features, modes)` or `None` (zero).
        bidirectional: bool. Whether later samples contribute through the second half of C.

    Returns:
        Tuple `(y, state)`: real `(batch, length, channels * features)`, complex
        `(batch, features, modes)`.
    """
    samples = ops.transpose(ops.cast(u, dA.dtype), (1, 0, 2))  # (length, batch, features)
    zero = ops.zeros_like(ops.multiply(samples[0][..., None], dB))
    channels = C.shape[0] // 2 if bidirectional else C.shape[0]

    def advance(state, sample):
        return ops.add(ops.multiply(dA, state), ops.multiply(dB, sample[..., None]))

    def forwards(state, sample):
        state = advance(state, sample)
        return state, _readout(C[:channels], state)

    def backwards(later, sample):
        return advance(later, sample), _readout(C[channels:], later)

    state, y = sequential(forwards, zero if initial_state is None else initial_state, samples)
    if bidirectional:
        _, earlier = sequential(backwards, zero, ops.flip(samples, axis=0))
        y = ops.add(y, ops.flip(earlier, axis=0))
    return ops.transpose(y, (1, 0, 2)), state


def _readout(C, state):
    y = 2.0 * ops.real(ops.sum(ops.multiply(C, state[:, None]), axis=-1))
    return ops.reshape(y, (-1, y.shape[1] * y.shape[2]))
