"""Sequential ground truth in complex arithmetic, written from the definitions alone."""

from keras import ops


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
    length = u.shape[1]
    complex_u = ops.cast(u, dA.dtype)
    zero = ops.zeros_like(ops.multiply(complex_u[:, 0, :, None], dB))
    state, outputs = zero if initial_state is None else initial_state, []
    channels = C.shape[0] // 2 if bidirectional else C.shape[0]
    for t in range(length):
        state = ops.add(ops.multiply(dA, state), ops.multiply(dB, complex_u[:, t, :, None]))
        outputs.append(_readout(C[:channels], state))
    if bidirectional:
        later = zero
        for t in reversed(range(length)):
            outputs[t] = outputs[t] + _readout(C[channels:], later)
            later = ops.add(ops.multiply(dA, later), ops.multiply(dB, complex_u[:, t, :, None]))
    return ops.stack(outputs, axis=1), state


def _readout(C, state):
    y = 2.0 * ops.real(ops.sum(ops.multiply(C, state[:, None]), axis=-1))
    return ops.reshape(y, (-1, y.shape[1] * y.shape[2]))
