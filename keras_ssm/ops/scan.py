"""The recurrence over chunk states, x_(m+1) = dA x_m + s_m, as one primitive.

It has its own gradient, a reverse scan with the conjugate transition. States are real tensors
with real parts, then imaginary parts, on the last axis; the chunk axis is the last but one.
"""

from keras import ops

from keras_ssm.ops import backend, pair


def boundary_states(dA, inputs, initial, reverse=False):
    """Returns the state before and after each chunk of a diagonal recurrence.

    Args:
        dA: tensor `(..., 2 modes)`. State transition over one chunk; its leading axes
            broadcast against those of `initial`.
        inputs: tensor `(..., chunks, 2 modes)`. What each chunk adds to the state.
        initial: tensor `(..., 2 modes)`. State before the first chunk (after the last one if
            `reverse`).
        reverse: bool. Whether the recurrence runs from the last chunk to the first.

    Returns:
        Tensor `(..., chunks + 1, 2 modes)`. Entry m is the state before chunk m; with
        `reverse`, the state that chunk m - 1 receives from the chunks after it, and entry 0
        has all of them.

    Example:
        ```python
        dA = ops.convert_to_tensor([[0.5, 0.0]])  # one mode: 0.5 + 0i
        states = boundary_states(dA, ops.ones((1, 3, 2)), ops.zeros((1, 2)))
        # real parts: 0, 1, 1.5, 1.75
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2, on chunks instead of samples.
    """
    states = _scan(dA, inputs, initial, reverse)
    edge = initial[..., None, :]
    return ops.concatenate([states, edge] if reverse else [edge, states], axis=-2)


def _scan(dA, inputs, initial, reverse):
    @ops.custom_gradient
    def primitive(dA, inputs, initial):
        states = forward(dA, inputs, initial, reverse)

        def grad(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            conjugate = pair.join(pair.conjugate(pair.split(dA)))
            d_inputs = forward(conjugate, upstream, ops.zeros_like(initial), not reverse)
            edge = initial[..., None, :]
            if reverse:
                first, previous = d_inputs[..., -1, :], [states[..., 1:, :], edge]
            else:
                first, previous = d_inputs[..., 0, :], [edge, states[..., :-1, :]]
            previous = ops.concatenate(previous, axis=-2)
            products = pair.multiply(pair.conjugate(pair.split(previous)), pair.split(d_inputs))
            d_dA = _sum_to_shape(ops.sum(pair.join(products), axis=-2), dA)
            d_initial = pair.join(pair.multiply(pair.split(conjugate), pair.split(first)))
            return d_dA, d_inputs, d_initial

        return states, grad

    return primitive(dA, inputs, initial)


def forward(dA, inputs, initial, reverse=False):
    """Returns the states after each chunk, `(..., chunks, 2 modes)`, without a gradient rule."""
    states = backend.diagonal_scan(dA, inputs, initial, reverse)
    if states is not None:
        return states
    if reverse:
        return ops.flip(_two_level(dA, ops.flip(inputs, axis=-2), initial), axis=-2)
    return _two_level(dA, inputs, initial)


def _two_level(dA, inputs, initial):
    """Scans about sqrt(chunks) blocks side by side, then over the blocks' own carries."""
    chunks = inputs.shape[-2]
    block = _block_size(chunks)
    blocks = -(-chunks // block)
    padding = [(0, 0)] * (len(inputs.shape) - 2) + [(0, blocks * block - chunks), (0, 0)]
    lead = inputs.shape[:-2]
    lead = tuple(-1 if n is None else n for n in lead)
    padded = ops.reshape(ops.pad(inputs, padding), (*lead, blocks, block, inputs.shape[-1]))
    transition = pair.split(dA[..., None, :])
    local, power = [], [transition]
    for t in range(block):
        step = padded[..., t, :]
        if t:
            step = step + pair.join(pair.multiply(transition, pair.split(local[-1])))
            power.append(pair.multiply(transition, power[-1]))
        local.append(step)  # (..., blocks, 2 modes)
    if blocks == 1:
        carry = initial[..., None, :]
    else:
        ends = _two_level(pair.join(power[-1])[..., 0, :], local[-1], initial)
        carry = ops.concatenate([initial[..., None, :], ends[..., :-1, :]], axis=-2)
    carry = pair.split(carry)
    states = [x + pair.join(pair.multiply(p, carry)) for x, p in zip(local, power, strict=True)]
    states = ops.reshape(ops.stack(states, axis=-2), (*lead, blocks * block, inputs.shape[-1]))
    return states[..., :chunks, :]


def _block_size(chunks):
    return chunks if chunks <= 8 else int(chunks**0.5 + 0.5)


def _sum_to_shape(x, like):
    """Sums out the axes over which `like` was broadcast."""
    extra = len(x.shape) - len(like.shape)
    if extra:
        x = ops.sum(x, axis=tuple(range(extra)))
    axes = tuple(i for i, n in enumerate(like.shape) if n == 1 and x.shape[i] != 1)
    return ops.sum(x, axis=axes, keepdims=True) if axes else x
