"""The recurrence over chunks as a loop that reads and writes in place, in a program of XLA."""

from keras_ssm.ops import pair
from keras_ssm.ops.backend.xla_loops import states_before


def carry_states(transition, inputs, initial, reverse):
    """`ops.carry` of diagonal systems without its gradient; `None` for dense ones.

    A loop over the first axis would transpose what goes in and out. Dense systems gain nothing.
    """
    if len(transition.shape) == 3:
        return None
    times_a = pair.multiplier(pair.rows(transition[:, None]))
    before, last = states_before(times_a, pair.rows(inputs), pair.rows(initial), reverse)
    return pair.from_rows(before), pair.from_rows(last)
