"""Systems applied sample by sample."""

from collections.abc import Callable

from keras import ops

from keras_ssm.ops import backend, pair
from keras_ssm.ops.backend import exact_einsum, sequential
from keras_ssm.types import Tensor

# Float32 numbers in the widest register of a CPU.
VECTOR = 16


def step(u: Tensor, state: Tensor, dA: Tensor, dB: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
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
    xla = backend.uses_xla()
    if xla and VECTOR < state.shape[-1] // 2 <= 2 * VECTOR:
        y, state = _by_rows(u[..., None, None], state, dA, dB, C)
    else:
        y, state = _by_parts(u[..., None], state, dA, dB, C, in_pairs=xla)
    # (batch, channels, features)
    channels, features = y.shape[1:]
    return ops.reshape(2.0 * y, (-1, channels * features)), state


def _by_rows(u, state, dA, dB, C):
    """Real and imaginary parts at once: half of XLA's time for 32 modes, but more for 16 or 64."""
    state = pair.multiplier(pair.rows(dA))(pair.rows(state)) + pair.rows(dB) * u
    signs = ops.convert_to_tensor([[1.0], [-1.0]], C.dtype)
    y = ops.sum(state[:, None] * (pair.rows(C) * signs), axis=(-2, -1))
    return y, pair.from_rows(state)


def _by_parts(u, state, dA, dB, C, in_pairs):
    """Real and imaginary parts apart."""
    re, im = pair.multiply(pair.split(dA), pair.split(state))
    dB_re, dB_im = pair.split(dB)
    re, im = re + dB_re * u, im + dB_im * u
    C_re, C_im = pair.split(C)
    terms = re[:, None] * C_re - im[:, None] * C_im
    # XLA adds the terms of a long sum one by one: half the time of a step with 64 modes.
    while in_pairs and terms.shape[-1] > VECTOR and terms.shape[-1] % 2 == 0:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return ops.sum(terms, axis=-1), pair.join((re, im))


def low_rank_step(
    u: Tensor, state: Tensor, low_rank: tuple, dB: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """Advances a bank of diagonal plus low-rank systems by one sample, without their matrices.

    Args:
        u: tensor `(batch, features)`. Inputs.
        state: tensor `(batch, features, 2 modes)`. Real parts, then imaginary parts.
        low_rank: the factors of E = dA - I, as `dplr_factors` returns them.
        dB: tensor `(features, 2 modes)`. Discrete input vectors.
        C: tensor `(channels, features, 2 modes)`. Output vectors as real rows on real states.

    Returns:
        Tuple `(y, state)`: `(batch, channels * features)` and `(batch, features, 2 modes)`.

    Example:
        ```python
        one = ops.ones((1, 2))
        factors = -0.5 * one, one[None], 0.0 * one[None]
        y, state = low_rank_step(ops.ones((1, 1)), one[None], factors, one, one[None])
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3 and appendix C.2.
    """
    diagonal, columns, rows = low_rank
    moved = pair.join(pair.multiply(pair.split(diagonal), pair.split(state)))
    shared = exact_einsum("rhn,bhn->rbh", rows, state)
    moved = moved - exact_einsum("rhn,rbh->bhn", columns, shared)
    state = state + (moved + dB * u[..., None])
    y = exact_einsum("bhn,chn->bch", state, C)
    channels, features = y.shape[1:]
    return ops.reshape(y, (-1, channels * features)), state


def recurrent(
    u: Tensor, advance: Callable, initial_state: Tensor, lengths: Tensor = None
) -> tuple[Tensor, Tensor]:
    """Applies a system with one step per sample.

    Args:
        u: tensor `(batch, length, features)`. Inputs.
        advance: function `(sample, state) -> (y, state)` of one sample `(batch, features)`.
        initial_state: tensor `(batch, ...)`.
        lengths: integer tensor `(batch,)` or `None`. Number of valid steps of each row, for
            the final state. `None` means all of them.

    Returns:
        Tuple `(y, state)`: `(batch, length, ...)` and the final state, shaped as the initial.

    Example:
        ```python
        add = lambda sample, state: (state + sample, state + sample)
        y, state = recurrent(ops.ones((1, 3, 1)), add, ops.zeros((1, 1)))  # 1, 2, 3
        ```
    """
    samples = ops.transpose(u, (1, 0, 2))
    if lengths is None:
        valid = ops.ones_like(samples[..., :1])
    else:
        t = ops.arange(0, u.shape[1] or ops.shape(u)[1])[:, None]
        valid = ops.cast(t < ops.cast(lengths, t.dtype), u.dtype)[..., None]
    extra = (1,) * (len(initial_state.shape) - 1)

    def one(carry, sample):
        state, last = carry
        y, state = advance(sample[..., 1:], state)
        is_valid = ops.reshape(sample[..., 0] > 0, (-1, *extra))
        return (state, ops.where(is_valid, state, last)), y

    samples = ops.concatenate([valid, samples], axis=-1)  # (length, batch, 1 + features)
    (_, state), y = sequential(one, (initial_state, initial_state), samples)
    return ops.transpose(y, (1, 0, 2)), state
