"""The recurrence over chunks, x_(m+1) = transition x_m + s_m, as one primitive.

It has its own gradient, which is the same recurrence the other way round with the adjoint
transition: left to autodiff, the scan would cost more than all the rest.
"""

from keras import ops

from keras_ssm.ops import backend, doubling, exporting, pair
from keras_ssm.ops.backend import exact_einsum


def carry(transition, inputs, initial, reverse=False, steps=1):
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
        before, last = carry(half, ops.ones((1, 1, 3, 2)), ops.zeros((1, 1, 2)))
        # real parts: 0, 1, 1.5 and 1.75
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, for time-invariant systems.
    """

    def forward(transition, inputs, initial):
        before, last = _states(transition, inputs, initial, reverse, steps)
        return (before, last), (transition, before)

    def backward(kept, cotangents):
        transition, before = kept
        d_inputs, d_initial = _states(_adjoint(transition), *cotangents, not reverse, steps)
        return _gradient_of_transition(transition, before, d_inputs), d_inputs, d_initial

    return backend.with_gradient(forward, backward)(transition, inputs, initial)


def _states(transition, inputs, initial, reverse, steps):
    if doubling.needed(inputs.shape[2]):
        return _by_doubling(transition, inputs, initial, reverse, steps)
    if exporting.loops_allowed():
        fast = backend.carry_states(transition, inputs, initial, reverse)
        if fast is not None:
            return fast
    chunks = exporting.known(inputs.shape[2])
    if chunks is not None and chunks <= backend.LONGEST_UNROLLED:
        state, before = initial, []
        for m in reversed(range(chunks)) if reverse else range(chunks):
            before.append(state)
            state = _advance(transition, state, inputs[:, :, m])
        return ops.stack(before[::-1] if reverse else before, axis=2), state

    def advance(state, s):
        return _advance(transition, state, s), state

    last, before = backend.sequential(
        advance, initial, ops.transpose(inputs, (2, 0, 1, 3)), reverse=reverse
    )
    return ops.transpose(before, (1, 2, 0, 3)), last


def _by_doubling(transition, inputs, initial, reverse, steps):
    dense = len(transition.shape) == 3

    def times(a, x):
        if dense:
            return x + exact_einsum("hij,hbmj->hbmi", a, x)
        return pair.product(a[:, None, None], x)

    def squared(a, move):
        return 2.0 * a + exact_einsum("hij,hjk->hik", a, a) if dense else pair.product(a, a)

    x = doubling.states(transition, inputs, initial, times, squared, 2, reverse, steps)
    if reverse:
        return x[:, :, 1:], x[:, :, 0]
    return x[:, :, :-1], x[:, :, -1]


def _advance(transition, state, inputs):
    if len(transition.shape) == 3:
        return state + (exact_einsum("hij,hbj->hbi", transition, state) + inputs)
    a = pair.split(transition[:, None])
    return pair.join(pair.multiply(a, pair.split(state))) + inputs


def _adjoint(transition):
    if len(transition.shape) == 3:
        return ops.transpose(transition, (0, 2, 1))
    return pair.join(pair.conjugate(pair.split(transition)))


def _gradient_of_transition(transition, before, d_inputs):
    if len(transition.shape) == 3:
        return exact_einsum("hbmi,hbmj->hij", d_inputs, before)
    product = pair.multiplier(pair.rows(before), conjugate=True)(pair.rows(d_inputs))
    product = ops.reshape(product, (before.shape[0], -1, before.shape[-1]))
    # A product with ones: XLA sums rows no faster than one number a nanosecond.
    return exact_einsum("hr,hrn->hn", ops.ones_like(product[..., 0]), product)
