"""How the GPU kernels of the selective scan divide their work: features, steps, segments.

PyTorch's kernels, in Triton, and JAX's, in Pallas, are the same walk.
"""

import dataclasses

from keras_ssm.ops.backend.kernel_support import padded

# The largest state of a feature, which a program has in its registers.
LARGEST_STATE = 16

# Features of a program; steps that are unrolled; and groups of them between states that are kept
# for the gradient.
FEATURES, T, EVERY = 32, 4, 8

# Programs that fill a card, and steps of a segment below which it is not worth while.
PROGRAMS = 1056
SHORTEST_SEGMENT = 128


@dataclasses.dataclass(frozen=True)
class ScanPlan:
    """The division of sequences of one shape.

    Args:
        batch, length, features: int. Sizes of the sequence.
        states: int. Those of a feature.
    """

    batch: int
    length: int
    features: int
    states: int

    def __post_init__(self):
        block = min(FEATURES, padded(self.features, 1))
        blocks = -(-self.features // block)
        G = segments(blocks * self.batch, self.length)
        every = min(EVERY, padded(-(-self.length // T), 1))
        steps = T * every
        found = {
            "T": T,
            "every": every,
            "block": block,  # features of a program
            "blocks": blocks,
            "NM": padded(self.states, 1),
            "G": G,  # segments of a sequence, of S steps
            "S": -(-self.length // (G * steps)) * steps,
            "rows": self.batch * G,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def kept(self):
        """The states of all rows that are kept for the gradient."""
        return self.rows * self.S // (self.T * self.every)


def segments(programs, length):
    """The number of segments of a sequence."""
    G = 1
    while programs * G < PROGRAMS and length // (2 * G) >= SHORTEST_SEGMENT:
        G *= 2
    return G
