"""The states of diagonal recurrences: about sqrt(steps) blocks side by side, or step by step.

Blocks of one transition are scanned from zero, and what the states before them contribute is added.
Where the transition changes they are read twice. Short blocks are unrolled where no compiler does
better with a loop.
"""

from keras import ops

from keras_ssm.ops import backend, doubling, pair
from keras_ssm.ops.exporting import known
from keras_ssm.types import Tensor

# Steps scanned one after another; longer recurrences run blocks of them side by side.
LONGEST_PLAIN_SCAN = 128 if backend.LONGEST_UNROLLED == 0 else 8


def diagonal_states(
    dA: Tensor, inputs: Tensor, initial: Tensor, reverse: bool = False, steps: int = 1
) -> Tensor:
    """Returns what `scan` returns, without a gradient rule."""
    count = known(inputs.shape[-2])
    if doubling.needed(inputs.shape[-2]):
        return _by_doubling(dA, inputs, initial, reverse, steps)
    fast = backend.scan_states(dA, inputs, initial, reverse)
    if fast is not None:
        return fast
    if count is None:
        return _rolled(dA, inputs, initial, reverse)
    if dA.shape[-2] == 1:
        return _same_blocks(dA, inputs, initial, reverse)
    if reverse:
        dA, inputs = ops.flip(dA, axis=-2), ops.flip(inputs, axis=-2)
        return ops.flip(diagonal_states(dA, inputs, initial), axis=-2)
    return backend.compiled(_blocked, count)(dA, inputs, initial)


def _by_doubling(dA, inputs, initial, reverse, steps):
    axis = len(inputs.shape) - 2
    while len(dA.shape) < len(inputs.shape):
        dA = dA[None]

    def squared(a, move):
        return pair.product(a, a if a.shape[axis] == 1 else move(a))

    x = doubling.states(dA, inputs, initial, pair.product, squared, axis, reverse, steps)
    return x[..., :-1, :] if reverse else x[..., 1:, :]


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

    def step(state, t):
        return _advance(_at(dA, t), state, inputs[..., t, :])

    return backend.unrolled(step, state, steps, reverse)


def _rolled(dA, inputs, state, reverse=False):
    """`_within` as a loop of the backend."""
    fixed_dA = None if dA.shape[-2] != 1 else dA[..., 0, :]

    def one(state, sample):
        state = _advance(fixed_dA if len(sample) == 1 else sample[1], state, sample[0])
        return state, state

    samples = [steps_first(inputs)] + ([steps_first(dA)] if fixed_dA is None else [])
    _, states = backend.sequential(one, state, samples, reverse=reverse)
    return steps_last(states)


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

    samples = [steps_first(inputs[..., 1:, :]), steps_first(dA[..., 1:, :])]
    (state, product), _ = backend.sequential(one, (state, product), samples)
    return state, product


def _at(dA, t):
    """The transition of step t, which may be that of all steps."""
    return dA[..., min(t, dA.shape[-2] - 1), :]


def _advance(a, state, inputs):
    return pair.product(a, state) + inputs


def steps_first(x):
    rank = len(x.shape)
    return ops.transpose(x, (rank - 2, *range(rank - 2), rank - 1))


def steps_last(x):
    rank = len(x.shape)
    return ops.transpose(x, (*range(1, rank - 1), 0, rank - 1))
