"""The recurrence x_t = a_t x_(t-1) + s_t as one primitive.

`scan` gives the states after its steps. `state_passing` gives those before them, which are the
same states shifted by one. The gradient is the recurrence the other way round, with the adjoint
transition: left to autodiff it would cost more than all the rest. A transition is diagonal, with
real parts, then imaginary parts, on the last axis, or dense and less the identity.
"""

import functools
from typing import NamedTuple

from keras import ops

from keras_ssm.ops import backend, doubling, exporting, pair
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.diagonal_states import diagonal_states, steps_first, steps_last
from keras_ssm.ops.exporting import known
from keras_ssm.types import Tensor


def scan(dA: Tensor, inputs: Tensor, initial: Tensor, reverse: bool = False) -> Tensor:
    """Returns the state after each step of a diagonal recurrence.

    Args:
        dA: tensor `(..., steps or 1, 2 modes)`. State transition of each step, or the same for
            all; its leading axes broadcast against those of `initial`.
        inputs: tensor `(..., steps, 2 modes)`. What each step adds to the state.
        initial: tensor `(..., 2 modes)`. State before the first step (after the last one if
            `reverse`).
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tensor `(..., steps, 2 modes)`.

    Example:
        ```python
        dA = ops.convert_to_tensor([[0.5, 0.0]])  # one mode: 0.5 + 0i
        states = scan(dA, ops.ones((3, 2)), ops.zeros((2,)))  # real parts: 1, 1.5, 1.75
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2.
    """

    if exporting.loops_allowed() and known(inputs.shape[-2]) is not None:
        portable = functools.partial(diagonal_states, reverse=reverse)
        states = backend.fused_scan(dA, inputs, initial, reverse, portable)
        if states is not None:
            return states
    return _recurrence(_DIAGONAL, dA, inputs, initial, reverse)


def state_passing(
    transition: Tensor, inputs: Tensor, initial: Tensor, reverse: bool = False, steps: int = 1
) -> tuple:
    """Returns the state before each chunk, and the one after the last.

    Args:
        transition: tensor `(features, 2 modes)`, diagonal, real parts then imaginary parts; or
            `(features, states, states)`, dense and less the identity.
        inputs: tensor `(features, batch, chunks, states)`. What each chunk adds to the state.
        initial: tensor `(features, batch, states)`. State before the first chunk.
        reverse: bool. Whether the recurrence runs from the last chunk to the first.
        steps: int. Steps of a chunk: how many chunks a sequence of unknown length may have.

    Returns:
        Tuple `(before, last)`: `(features, batch, chunks, states)` and
        `(features, batch, states)`. In reverse, entry m of `before` is what chunk m receives
        from the chunks after it, and `last` what chunk 0 hands on.

    Example:
        ```python
        half = ops.convert_to_tensor([[0.5, 0.0]])  # one mode: 0.5 + 0i
        before, last = state_passing(half, ops.ones((1, 1, 3, 2)), ops.zeros((1, 1, 2)))
        # real parts: 0, 1, 1.5 and 1.75
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """

    if len(transition.shape) == 3:
        after = _recurrence(_DENSE, transition, inputs, initial, reverse, steps)
    else:
        after = _recurrence(_SAME, transition[:, None, None], inputs, initial, reverse, steps)
    return _before(after, initial, reverse), after[..., 0 if reverse else -1, :]


def _before(after, initial, reverse):
    """The states before the steps, from those after them."""
    edge = initial[..., None, :]
    parts = [after[..., 1:, :], edge] if reverse else [edge, after[..., :-1, :]]
    return ops.concatenate(parts, axis=-2)


class _Transition(NamedTuple):
    """What the recurrence does with a kind of transition.

    `states(a, inputs, initial, reverse, steps)` are those after each step. `adjoint(a)` is the
    transition of the gradient, `of_next(a, reverse)` at each step that of the step after it, and
    `apply(a, t, x)` that of step t times a state. `slope(a, states, d_inputs, initial, reverse)`
    is the gradient of a: the sum, or the list, of conj(x_(t - 1)) times the adjoint of step t.
    """

    states: object
    adjoint: object
    of_next: object
    apply: object
    slope: object


def _recurrence(kind, a, inputs, initial, reverse, steps=1):
    """The states after each step."""

    def forward(a, inputs, initial):
        states = kind.states(a, inputs, initial, reverse, steps)
        return states, (a, states, initial)

    def backward(residuals, upstream):
        a, states, initial = residuals
        adjoint = kind.adjoint(a)
        zero = ops.zeros_like(initial)
        d_inputs = kind.states(kind.of_next(adjoint, reverse), upstream, zero, not reverse, steps)
        first = -1 if reverse else 0
        d_initial = kind.apply(adjoint, first, d_inputs[..., first, :])
        return kind.slope(a, states, d_inputs, initial, reverse), d_inputs, d_initial

    return backend.with_gradient(forward, backward)(a, inputs, initial)


# Diagonal transitions


def _conjugate(a):
    return pair.join(pair.conjugate(pair.split(a)))


def _of_next(a, reverse):
    """The adjoint of a step passes through the transition of the step after it."""
    if a.shape[-2] == 1:
        return a
    edge = ops.zeros_like(a[..., :1, :])
    return ops.concatenate([edge, a[..., :-1, :]] if reverse else [a[..., 1:, :], edge], axis=-2)


def _times(a, t, x):
    return pair.product(a[..., t, :], x)


def _slope(dA, states, d_inputs, initial, reverse):
    """The gradient of transitions of any shape."""
    if dA.shape[-2] != 1:
        before = pair.conjugate(pair.split(_before(states, initial, reverse)))
        return pair.sum_to(pair.join(pair.multiply(before, pair.split(d_inputs))), dA.shape)
    first, earlier, later = 0, slice(None, -1), slice(1, None)
    if reverse:
        first, earlier, later = -1, later, earlier
    edge = pair.product(_conjugate(initial), d_inputs[..., first, :])
    x, d = pair.split(states[..., earlier, :]), pair.split(d_inputs[..., later, :])

    def product(a, b):
        return pair.sum_to(a * b, dA.shape)

    re = product(x[0], d[0]) + product(x[1], d[1])
    im = product(x[0], d[1]) - product(x[1], d[0])
    return pair.sum_to(edge[..., None, :], dA.shape) + pair.join((re, im))


def _slope_of_same(a, states, d_inputs, initial, reverse):
    """The gradient of transitions `(features, 1, 1, 2 modes)`."""
    before = pair.rows(_before(states, initial, reverse))
    product = pair.multiplier(before, conjugate=True)(pair.rows(d_inputs))
    product = ops.reshape(product, (states.shape[0], -1, states.shape[-1]))
    # A product with ones: XLA sums rows no faster than one number a nanosecond.
    return exact_einsum("hr,hrn->hn", ops.ones_like(product[..., 0]), product)[:, None, None]


_DIAGONAL = _Transition(diagonal_states, _conjugate, _of_next, _times, _slope)
_SAME = _DIAGONAL._replace(slope=_slope_of_same)


# Dense transitions


def _dense_states(E, inputs, initial, reverse, steps):
    if doubling.needed(inputs.shape[-2]):
        return _dense_by_doubling(E, inputs, initial, reverse, steps)
    count = known(inputs.shape[-2])
    if count is not None and count <= backend.LONGEST_UNROLLED:

        def step(state, t):
            return _dense_advance(E, state, inputs[..., t, :])

        return backend.unrolled(step, initial, count, reverse)

    def advance(state, sample):
        state = _dense_advance(E, state, sample)
        return state, state

    _, states = backend.sequential(advance, initial, steps_first(inputs), reverse=reverse)
    return steps_last(states)


def _dense_by_doubling(E, inputs, initial, reverse, steps):
    def times(E, x):
        return x + exact_einsum("hij,hbmj->hbmi", E, x)

    def squared(E, move):
        return 2.0 * E + exact_einsum("hij,hjk->hik", E, E)

    x = doubling.states(E, inputs, initial, times, squared, 2, reverse, steps)
    return x[..., :-1, :] if reverse else x[..., 1:, :]


def _dense_advance(E, state, inputs):
    return state + (exact_einsum("hij,hbj->hbi", E, state) + inputs)


def _dense_times(E, t, x):
    return x + exact_einsum("hij,hbj->hbi", E, x)


def _dense_slope(E, states, d_inputs, initial, reverse):
    return exact_einsum("hbmi,hbmj->hij", d_inputs, _before(states, initial, reverse))


_DENSE = _Transition(
    _dense_states,
    lambda E: ops.transpose(E, (0, 2, 1)),
    lambda E, reverse: E,
    _dense_times,
    _dense_slope,
)
