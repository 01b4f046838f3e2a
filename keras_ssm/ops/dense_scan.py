"""The recurrence over chunk states of dense systems, x_(m+1) = x_m + (F x_m + s_m).

One primitive with its own gradient, a reverse scan with the transpose of F, like `ops.scan`.
"""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum

# Chunks scanned one after another; longer recurrences run blocks of them side by side.
LONGEST_PLAIN_SCAN = 32


def dense_boundary_states(F, inputs, initial, reverse=False):
    """Returns the state before and after each chunk of a dense recurrence.

    Args:
        F: tensor `(features, states, states)`. Transition over one chunk less the identity.
        inputs: tensor `(features, batch, chunks, states)`. What each chunk adds to the state.
        initial: tensor `(features, batch, states)`. State before the first chunk (after the
            last one if `reverse`).
        reverse: bool. Whether the recurrence runs from the last chunk to the first.

    Returns:
        Tensor `(features, batch, chunks + 1, states)`, in the order of `boundary_states`.

    Example:
        ```python
        F = -0.5 * ops.ones((1, 1, 1))
        states = dense_boundary_states(F, ops.ones((1, 1, 3, 1)), ops.zeros((1, 1, 1)))
        # 0, 1, 1.5, 1.75
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equation 3, on chunks instead of samples.
    """

    @ops.custom_gradient
    def primitive(F, inputs, initial):
        states = _forward(F, inputs, initial, reverse)

        def grad(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            d_inputs = _forward(
                ops.transpose(F, (0, 2, 1)), upstream, ops.zeros_like(initial), not reverse
            )
            edge = initial[..., None, :]
            if reverse:
                first, previous = d_inputs[:, :, -1], [states[:, :, 1:], edge]
            else:
                first, previous = d_inputs[:, :, 0], [edge, states[:, :, :-1]]
            previous = ops.concatenate(previous, axis=2)
            d_F = exact_einsum("hbmi,hbmj->hij", d_inputs, previous)
            d_initial = first + exact_einsum("hji,hbj->hbi", F, first)
            return d_F, d_inputs, d_initial

        return states, grad

    states, edge = primitive(F, inputs, initial), initial[..., None, :]
    return ops.concatenate([states, edge] if reverse else [edge, states], axis=2)


def _forward(F, inputs, initial, reverse):
    """The states after each chunk, `(features, batch, chunks, states)`."""
    if reverse:
        return ops.flip(_forward(F, ops.flip(inputs, axis=2), initial, False), axis=2)
    chunks = inputs.shape[2]
    if chunks is None or backend.LONGEST_UNROLLED == 0:
        return _rolled_scan(F, inputs, initial)
    if chunks <= LONGEST_PLAIN_SCAN:
        state, states = initial, []
        for m in range(chunks):
            state = _advance(F, state, inputs[:, :, m])
            states.append(state)
        return ops.stack(states, axis=2)
    # Blocks of 2^k chunks side by side: their own ends, the states between them, then all states.
    exponent = (chunks.bit_length() + 1) // 2
    block = 1 << exponent
    blocks = -(-chunks // block)
    padding = [(0, 0), (0, 0), (0, blocks * block - chunks), (0, 0)]
    features, batch, _, size = inputs.shape
    batch = -1 if batch is None else batch
    parts = ops.reshape(ops.pad(inputs, padding), (features, batch, blocks, block, size))
    ends = ops.zeros_like(parts[:, :, :, 0])
    for t in range(block):
        ends = _advance(F, ends, parts[:, :, :, t])
    over_block = F
    for _ in range(exponent):
        over_block = 2.0 * over_block + exact_einsum("hij,hjk->hik", over_block, over_block)
    carry = _forward(over_block, ends[:, :, :-1], initial, False)
    state, states = ops.concatenate([initial[:, :, None], carry], axis=2), []
    for t in range(block):
        state = _advance(F, state, parts[:, :, :, t])
        states.append(state)
    states = ops.reshape(ops.stack(states, axis=3), (features, batch, blocks * block, size))
    return states[:, :, :chunks]


def _advance(F, state, inputs):
    return state + (exact_einsum("hij,h...j->h...i", F, state) + inputs)


def _rolled_scan(F, inputs, initial):
    def advance(state, s):
        state = _advance(F, state, s)
        return state, state

    _, states = backend.sequential(advance, initial, ops.transpose(inputs, (2, 0, 1, 3)))
    return ops.transpose(states, (1, 2, 0, 3))
