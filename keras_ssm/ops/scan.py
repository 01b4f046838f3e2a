"""The recurrence x_t = a_t x_(t-1) + s_t of diagonal systems, as one primitive.

It has its own gradient, a reverse scan with the conjugate transition. States are real tensors
with real parts, then imaginary parts, on the last axis; the steps are on the last but one.
"""

from keras import ops

from keras_ssm.ops import backend, doubling, exporting, pair
from keras_ssm.ops.exporting import known
from keras_ssm.ops.sum_to import sum_to

# Steps scanned one after another; longer recurrences run blocks of them side by side.
LONGEST_PLAIN_SCAN = 128 if backend.LONGEST_UNROLLED == 0 else 8


def scan(dA, inputs, initial, reverse=False):
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

    def evaluate(dA, inputs, initial):
        states = portable(dA, inputs, initial)
        return states, (dA, states, initial)

    def gradient(kept, upstream):
        dA, states, initial = kept
        conjugate = pair.join(pair.conjugate(pair.split(dA)))
        back = conjugate
        if dA.shape[-2] != 1:
            # The adjoint of step t passes through the transition of the step after it.
            edge = ops.zeros_like(conjugate[..., :1, :])
            parts = [edge, conjugate[..., :-1, :]] if reverse else [conjugate[..., 1:, :], edge]
            back = ops.concatenate(parts, axis=-2)
        d_inputs = forward(back, upstream, ops.zeros_like(initial), not reverse)
        at = -1 if reverse else 0
        d_initial = pair.product(conjugate[..., at, :], d_inputs[..., at, :])
        return _gradient_of_transition(dA, states, d_inputs, initial, at), d_inputs, d_initial

    portable = lambda *tensors: forward(*tensors, reverse)  # noqa: E731
    states = None
    if exporting.loops_allowed() and known(inputs.shape[-2]) is not None:
        states = backend.fused_scan(dA, inputs, initial, reverse, portable)
    if states is not None:
        return states
    return backend.with_gradient(evaluate, gradient)(dA, inputs, initial)


def forward(dA, inputs, initial, reverse=False):
    """Returns what `scan` returns, without a gradient rule."""
    if doubling.needed(inputs.shape[-2]):
        return _by_doubling(dA, inputs, initial, reverse)
    fast = backend.scan_states(dA, inputs, initial, reverse)
    if fast is not None:
        return fast
    steps = known(inputs.shape[-2])
    if dA.shape[-2] == 1 and steps is not None:
        return _same_blocks(dA, inputs, initial, reverse)
    if steps is None:
        return _rolled(dA, inputs, initial, reverse)
    if reverse:
        dA, inputs = ops.flip(dA, axis=-2), ops.flip(inputs, axis=-2)
        return ops.flip(forward(dA, inputs, initial), axis=-2)
    return backend.compiled(_blocked, steps)(dA, inputs, initial)


def _by_doubling(dA, inputs, initial, reverse):
    axis = len(inputs.shape) - 2
    squared = lambda a, move: pair.product(a, a if a.shape[axis] == 1 else move(a))  # noqa: E731
    while len(dA.shape) < len(inputs.shape):
        dA = dA[None]
    x = doubling.states(dA, inputs, initial, pair.product, squared, axis, reverse)
    kept = slice(0, -1) if reverse else slice(1, None)
    return x[(*[slice(None)] * axis, kept)]


def _same_blocks(dA, inputs, initial, reverse=False):
    """`_blocked` for a transition that is the same in every step.

    The blocks are scanned from zero; what the states before them contribute is added afterwards.
    """
    steps = inputs.shape[-2]
    if steps <= LONGEST_PLAIN_SCAN:
        return _within(dA, inputs, initial, reverse)
    block = int(steps**0.5 + 0.5)
    blocks = -(-steps // block)
    lead = tuple(-1 if n is None else n for n in inputs.shape[:-2])
    size, rest = inputs.shape[-1], blocks * block - steps
    padding = [(0, 0)] * len(lead) + [(rest, 0) if reverse else (0, rest), (0, 0)]
    parts = ops.reshape(backend.pad(inputs, padding), (*lead, blocks, block, size))
    local = _within(dA[..., None, :], parts, ops.zeros_like(parts[..., 0, :]), reverse)
    ends = local[..., 0 if reverse else -1, :]
    powers = _powers(dA, block)  # (..., block, 2 modes)
    ends = _same_blocks(powers[..., -1:, :], ends, initial, reverse)
    edge = initial[..., None, :]
    parts = [ends[..., 1:, :], edge] if reverse else [edge, ends[..., :-1, :]]
    starts = ops.concatenate(parts, axis=-2)[..., None, :]
    powers = ops.flip(powers, axis=-2) if reverse else powers
    states = local + pair.product(powers[..., None, :, :], starts)
    states = ops.reshape(states, (*lead, blocks * block, size))
    return states[..., rest:, :] if reverse else states[..., :steps, :]


def _powers(a, count):
    """a, a^2, ..., a^count along the last axis but one, by doubling."""
    powers = a
    while powers.shape[-2] < count:
        powers = ops.concatenate([powers, pair.product(powers, powers[..., -1:, :])], axis=-2)
    return powers[..., :count, :]


def _blocked(dA, inputs, initial):
    """Scans about sqrt(steps) blocks side by side: their ends, the states between, all states.

    The transition may change from step to step, so the blocks are read twice.
    """
    steps = inputs.shape[-2]
    if steps <= LONGEST_PLAIN_SCAN:
        return _within(dA, inputs, initial)
    block = int(steps**0.5 + 0.5)
    blocks = -(-steps // block)

    def in_blocks(x):
        lead = tuple(-1 if n is None else n for n in x.shape[:-2])
        padding = [(0, 0)] * len(lead) + [(0, blocks * block - steps), (0, 0)]
        return ops.reshape(backend.pad(x, padding), (*lead, blocks, block, x.shape[-1]))

    dA, parts = in_blocks(dA), in_blocks(inputs)
    ends, over_block = _fold(dA, parts)
    ends = _blocked(over_block, ends, initial)
    starts = ops.concatenate([initial[..., None, :], ends[..., :-1, :]], axis=-2)
    states = _within(dA, parts, starts)
    lead = tuple(-1 if n is None else n for n in inputs.shape[:-2])
    states = ops.reshape(states, (*lead, blocks * block, inputs.shape[-1]))
    return states[..., :steps, :]


def _within(dA, inputs, state, reverse=False):
    """The states after each step."""
    steps = known(inputs.shape[-2])
    if steps is None or steps > backend.LONGEST_UNROLLED:
        return _rolled(dA, inputs, state, reverse)
    step = lambda state, t: _advance(_at(dA, t), state, inputs[..., t, :])  # noqa: E731
    return backend.unrolled(step, state, steps, reverse)


def _rolled(dA, inputs, state, reverse=False):
    """`_within` as a loop of the backend."""
    same = None if dA.shape[-2] != 1 else dA[..., 0, :]

    def one(state, sample):
        state = _advance(same if len(sample) == 1 else sample[1], state, sample[0])
        return state, state

    samples = [_steps_first(inputs)] + ([_steps_first(dA)] if same is None else [])
    _, states = backend.sequential(one, state, samples, reverse=reverse)
    return _steps_last(states)


def _fold(dA, inputs):
    """The state after the last step, from zero, and the product of the transitions."""
    steps = inputs.shape[-2]
    state, product = inputs[..., 0, :], dA[..., 0, :]
    if steps - 1 <= backend.LONGEST_UNROLLED:
        for t in range(1, steps):
            state = _advance(dA[..., t, :], state, inputs[..., t, :])
            product = pair.product(dA[..., t, :], product)
        return state, product

    def one(carry, sample):
        inputs, a = sample
        return (_advance(a, carry[0], inputs), pair.product(a, carry[1])), None

    samples = [_steps_first(inputs[..., 1:, :]), _steps_first(dA[..., 1:, :])]
    (state, product), _ = backend.sequential(one, (state, product), samples)
    return state, product


def _at(dA, t):
    """The transition of step t, which may be that of all steps."""
    return dA[..., min(t, dA.shape[-2] - 1), :]


def _advance(a, state, inputs):
    return pair.product(a, state) + inputs


def _gradient_of_transition(dA, states, d_inputs, initial, at):
    """Sum or, if it varies, list of conj(x_(t - 1)) times the adjoint of step t."""
    inner = slice(1, None) if at else slice(None, -1)
    others = slice(None, -1) if at else slice(1, None)
    if dA.shape[-2] != 1:
        edge = initial[..., None, :]
        parts = [states[..., inner, :], edge] if at else [edge, states[..., inner, :]]
        previous = pair.conjugate(pair.split(ops.concatenate(parts, axis=-2)))
        return sum_to(pair.join(pair.multiply(previous, pair.split(d_inputs))), dA.shape)
    first = pair.product(pair.join(pair.conjugate(pair.split(initial))), d_inputs[..., at, :])
    x, d = pair.split(states[..., inner, :]), pair.split(d_inputs[..., others, :])
    product = lambda a, b: sum_to(a * b, dA.shape)  # noqa: E731
    re = product(x[0], d[0]) + product(x[1], d[1])
    im = product(x[0], d[1]) - product(x[1], d[0])
    return sum_to(first[..., None, :], dA.shape) + pair.join((re, im))


def _steps_first(x):
    rank = len(x.shape)
    return ops.transpose(x, (rank - 2, *range(rank - 2), rank - 1))


def _steps_last(x):
    rank = len(x.shape)
    return ops.transpose(x, (*range(1, rank - 1), 0, rank - 1))
