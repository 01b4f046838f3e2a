"""Sequential ground truth in complex arithmetic, written from the definitions alone."""

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import sequential
from keras_ssm.types import Tensor


def to_complex(re: Tensor, im: Tensor) -> Tensor:
    """Returns re + i im as a complex tensor."""
    return backend.complex_of(ops.convert_to_tensor(re), ops.convert_to_tensor(im))


def discretize(A: Tensor, B: Tensor, dt: Tensor, discretization: str) -> tuple[Tensor, Tensor]:
    """Returns complex (dA, dB) of x' = A x + B u, straight from the formulas.

    Args:
        A, B: complex tensors `(features, modes)`.
        dt: complex tensor `(features, 1 or modes)`.
        discretization: str. `"zoh"` or `"bilinear"`.

    Returns:
        Tuple of complex tensors `(features, modes)`.
    """
    z = dt * A
    if discretization == "zoh":
        dA = ops.exp(z)
        return dA, (dA - 1) * B / A
    half = z / 2
    below = 1 - half
    return (1 + half) / below, dt * B / below


def naive(
    u: Tensor,
    dA: Tensor,
    dB: Tensor,
    C: Tensor,
    initial_state: Tensor = None,
    bidirectional: bool = False,
    conjugates: bool = True,
) -> tuple[Tensor, Tensor]:
    """Applies a bank of diagonal systems one sample at a time.

    Args:
        u: real tensor `(batch, length, features)`.
        dA, dB: complex tensors `(features, modes)`.
        C: complex tensor `(channels, features, modes)`, `(2 channels, ...)` if bidirectional.
        initial_state: complex tensor `(batch, features, modes)` or `None` (zero).
        bidirectional: bool. Whether later samples contribute through the second half of C.
        conjugates: bool. Whether y is 2 Re(C x), of conjugate pairs, and not Re(C x).

    Returns:
        Tuple `(y, state)`: real `(batch, length, channels * features)`, complex
        `(batch, features, modes)`.
    """
    samples = ops.transpose(ops.cast(u, dA.dtype), (1, 0, 2))  # (length, batch, features)
    zero = ops.zeros_like(samples[0][..., None] * dB)
    channels = C.shape[0] // 2 if bidirectional else C.shape[0]

    def advance(state, sample):
        return dA * state + dB * sample[..., None]

    def forwards(state, sample):
        state = advance(state, sample)
        return state, _readout(C[:channels], state, conjugates)

    def backwards(later, sample):
        return advance(later, sample), _readout(C[channels:], later, conjugates)

    state, y = sequential(forwards, zero if initial_state is None else initial_state, samples)
    if bidirectional:
        _, earlier = sequential(backwards, zero, ops.flip(samples, axis=0))
        y = y + ops.flip(earlier, axis=0)
    return ops.transpose(y, (1, 0, 2)), state


def naive_dense(
    u: Tensor,
    E: Tensor,
    dB: Tensor,
    C: Tensor,
    initial_state: Tensor = None,
    bidirectional: bool = False,
) -> tuple[Tensor, Tensor]:
    """Applies a bank of dense systems x' = x + (E x + dB u), y = C x' one sample at a time.

    Args:
        u: tensor `(batch, length, features)`.
        E: tensor `(features, states, states)`. State transition less the identity.
        dB: tensor `(features, states)`.
        C: tensor `(channels, features, states)`, `(2 channels, ...)` if bidirectional.
        initial_state: tensor `(batch, features, states)` or `None` (zero).
        bidirectional: bool. Whether later samples contribute through the second half of C.

    Returns:
        Tuple `(y, state)`: `(batch, length, channels * features)`, `(batch, features, states)`.
    """
    samples = ops.transpose(u, (1, 0, 2))  # (length, batch, features)
    zero = ops.zeros_like(samples[0][..., None] * dB)
    channels = C.shape[0] // 2 if bidirectional else C.shape[0]

    def advance(state, sample):
        change = ops.sum(E * state[:, :, None, :], axis=-1)
        return state + (change + dB * sample[..., None])

    def read(rows, state):
        y = ops.sum(rows * state[:, None], axis=-1)
        return ops.reshape(y, (-1, y.shape[1] * y.shape[2]))

    def forwards(state, sample):
        state = advance(state, sample)
        return state, read(C[:channels], state)

    def backwards(later, sample):
        return advance(later, sample), read(C[channels:], later)

    state, y = sequential(forwards, zero if initial_state is None else initial_state, samples)
    if bidirectional:
        _, earlier = sequential(backwards, zero, ops.flip(samples, axis=0))
        y = y + ops.flip(earlier, axis=0)
    return ops.transpose(y, (1, 0, 2)), state


def naive_mimo(
    u: Tensor,
    dA: Tensor,
    dB: Tensor,
    C: Tensor,
    initial_state: Tensor = None,
    reverse: bool = False,
    conjugates: bool = True,
) -> tuple[Tensor, Tensor]:
    """Applies one diagonal system with many inputs and outputs one sample at a time.

    Args:
        u: real tensor `(batch, length, features)`.
        dA: complex tensor `(modes,)`, or `(length, batch, modes)` where it varies.
        dB: complex tensor `(modes, features)`, or `(length, batch, modes, features)`.
        C: complex tensor `(features, modes)`.
        initial_state: complex tensor `(batch, modes)` or `None` (zero).
        reverse: bool. Whether the sequence is read backwards.
        conjugates: bool. Whether y is 2 Re(C x), of conjugate pairs, and not Re(C x).

    Returns:
        Tuple `(y, state)`: real `(batch, length, features)`, complex `(batch, modes)`.
    """
    samples = ops.transpose(ops.cast(u, dA.dtype), (1, 0, 2))  # (length, batch, features)
    driven = ops.sum(dB * samples[..., None, :], axis=-1)  # (length, batch, modes)
    gains = dA + ops.zeros_like(driven)
    steps = ops.stack([gains, driven], axis=1)
    steps = ops.flip(steps, axis=0) if reverse else steps

    def advance(state, step):
        state = step[0] * state + step[1]
        y = ops.real(ops.sum(C * state[:, None], axis=-1))
        return state, 2.0 * y if conjugates else y

    start = ops.zeros_like(driven[0]) if initial_state is None else initial_state
    state, y = sequential(advance, start, steps)
    y = ops.flip(y, axis=0) if reverse else y
    return ops.transpose(y, (1, 0, 2)), state


def convolve(u: Tensor, K: Tensor) -> Tensor:
    """Convolves each feature with its kernel, by the definition.

    Args:
        u: tensor `(batch, length, features)`.
        K: tensor `(channels, features, length)`.

    Returns:
        Tensor `(batch, length, channels * features)`.
    """
    length = u.shape[1]
    lags = np.arange(length)[:, None] - np.arange(length)[None]
    matrix = ops.take(K, np.maximum(lags, 0), axis=-1)  # (channels, features, length, length)
    matrix = ops.where(ops.convert_to_tensor(lags >= 0), matrix, 0.0)
    y = backend.einsum("chts,bsh->btch", matrix, u)
    return ops.reshape(y, (-1, length, y.shape[2] * y.shape[3]))


def naive_selective(x, dt, A, B, C, initial_state=None):
    """Applies h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t, y_t = h_t C_t one sample at a time.

    Args:
        x: tensor `(batch, length, features)`.
        dt: tensor `(batch, length, features)`.
        A: tensor `(features, states)`.
        B, C: tensors `(batch, length, states)`, or `(batch, length, features, states)`.
        initial_state: tensor `(batch, features, states)` or `None` (zero).

    Returns:
        Tuple `(y, state)`: `(batch, length, features)`, `(batch, features, states)`.
    """
    if len(B.shape) == 3:
        B, C = B[:, :, None] + 0 * dt[..., None], C[:, :, None] + 0 * dt[..., None]
    h = ops.zeros_like(B[:, 0]) if initial_state is None else initial_state
    outputs = []
    for t in range(x.shape[1]):
        driven = (dt[:, t] * x[:, t])[..., None] * B[:, t]
        h = ops.exp(dt[:, t, :, None] * A) * h + driven
        outputs.append(ops.sum(h * C[:, t], axis=-1))
    return ops.stack(outputs, axis=1), h


def naive_delta(q, k, v, beta, g=None, initial_state=None):
    """Applies the delta rule, S <- exp(g) S, S <- S - beta k (k^T S - v^T), y = S^T q, by turns.

    Args:
        q: tensor `(batch, length, heads, key_dim)`.
        k: tensor `(batch, length, corrections, heads, key_dim)`.
        v: tensor `(batch, length, corrections, heads, value_dim)`.
        beta: tensor `(batch, length, corrections, heads)`.
        g: tensor `(batch, length, heads)` or `None` (0).
        initial_state: tensor `(batch, heads, key_dim, value_dim)` or `None` (zero).

    Returns:
        Tuple `(y, state)`: `(batch, length, heads, value_dim)` and the last state.
    """
    S = initial_state
    if S is None:
        S = ops.zeros_like(k[:, 0, 0, :, :, None] * v[:, 0, 0, :, None])
    outputs = []
    for t in range(q.shape[1]):
        S = S if g is None else ops.exp(g[:, t])[..., None, None] * S
        for j in range(k.shape[2]):
            key = k[:, t, j, :, :, None]
            held = ops.sum(key * S, axis=-2, keepdims=True)
            S = S - beta[:, t, j, :, None, None] * key * (held - v[:, t, j, :, None])
        outputs.append(ops.sum(q[:, t, :, :, None] * S, axis=-2))
    return ops.stack(outputs, axis=1), S


def _readout(C, state, conjugates):
    y = ops.real(ops.sum(C * state[:, None], axis=-1))
    y = 2.0 * y if conjugates else y
    return ops.reshape(y, (-1, y.shape[1] * y.shape[2]))
