"""The recurrence over chunks as a loop that reads and writes in place, in a program of XLA."""

from keras import ops

from keras_ssm.ops import pair


def carry_states(transition, inputs, initial, reverse):
    """`ops.carry` of diagonal systems without its gradient; `None` for dense ones.

    A loop over the first axis would transpose what goes in and out. A state takes the place of
    what its chunk added, which has been read by then: XLA sees that nothing has to be copied.
    Real and imaginary parts are rows of their own, as in `pair.product`, throughout the loop.
    Dense systems gain nothing.
    """
    if len(transition.shape) == 3:
        return None
    features, _, chunks, states = inputs.shape
    batch = ops.shape(inputs)[1]
    times_a = pair.multiplier(pair.rows(transition[:, None]))

    def one(i, loop):
        state, after = loop
        place = (0, 0, chunks - 1 - i if reverse else i, 0, 0)
        added = ops.slice(after, place, (features, batch, 1, 2, states // 2))
        state = times_a(state) + added[:, :, 0]
        return state, ops.slice_update(after, place, state[:, :, None])

    loop = ops.fori_loop(0, chunks, one, (pair.rows(initial), pair.rows(inputs)))
    last, after = map(pair.from_rows, loop)
    start = initial[:, :, None]
    ends = [after[:, :, 1:], start] if reverse else [start, after[:, :, :-1]]
    return ops.concatenate(ends, axis=2), last
