"""How the GPU kernels of diagonal banks divide their work: tiles, lanes of modes, segments.

PyTorch's kernels, in Triton, and JAX's, in Pallas, are the same walk with the same tiles.
"""

import dataclasses

from keras_ssm.ops.backend.kernel_support import padded

# Steps of a chunk, rows of a program, and most modes of a plane.
T, ROWS, MOST_MODES = 16, 16, 64

# Modes of a lane, features of a program and the most lanes that it may have, by the bytes of a
# number and the kernel, measured; `ends` and `moments` lie in the lanes of the kernel after them.
# Features are filled up to a multiple of `WIDTH`.
TILES = {
    4: {"ends": (32, 4, 16), "moments": (32, 4, 16), "outputs": (32, 4, 8), "slopes": (16, 4, 8)},
    2: {"ends": (32, 8, 16), "moments": (32, 4, 16), "outputs": (32, 16, 16), "slopes": (32, 4, 8)},
}
MANY_MODES = 32  # more take lanes of as many
WIDTH = 16

# Programs that fill a card: sequences are cut into segments until there are so many. Where there
# are half as many without cuts, sequences stay whole, which saves a pass.
PROGRAMS = 128
SHORTEST_SEGMENT = 4 * T

# The longest sequence, in numbers, that 32-bit offsets can address.
LARGEST = 2**31 - 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """The division of sequences of one shape, for one group of modes.

    Args:
        batch, length, features: int. Sizes of the sequence.
        modes: int.
        number: int. Bytes of a number of the sequence.
        exact: bool. Whether numbers are more than bfloat16.
        way: `"forward"` or `"back"`. Which of the kernels will run.
    """

    batch: int
    length: int
    features: int
    modes: int
    number: int
    exact: bool
    way: str

    def __post_init__(self):
        tiles = TILES[4 if self.number == 4 else 2]
        size, features, _ = tiles["outputs" if self.way == "forward" else "slopes"]
        size = max(size, MANY_MODES) if self.modes > MANY_MODES else size
        size = min(size, padded(self.modes))
        parts = padded(-(-self.modes // size), 1)
        width = -(-self.features // WIDTH) * WIDTH
        G = segments(self.batch, self.length, -(-self.features // features))
        found = {
            "tiles": tiles,
            "size": size,  # modes of a lane
            "parts": parts,  # lanes of a feature
            "width": width,  # features with the filling
            "lanes": width * parts,
            "G": G,  # segments of a sequence, of S steps
            "S": -(-self.length // (G * T)) * T,
            "rows": self.batch * G,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def tile(self, kernel):
        """Modes of a lane, lanes of a feature, and features of a program of a kernel."""
        size, features, lanes = self.tiles[kernel]
        parts = self.parts
        own, size = self.size, max(self.size, min(size, self.size * parts))
        if kernel in ("ends", "moments"):
            parts = own * parts // size
        else:
            size = own
        if own == MANY_MODES and self.exact:
            lanes = min(lanes, 8)  # more would not fit the registers
        return size, parts, max(1, min(features, lanes // parts))


def states_of(batch, length, features, modes):
    """Numbers in the states before the segments of a gradient."""
    plan = Plan(batch, length, features, min(modes, MOST_MODES), 4, True, "back")
    return plan.rows * plan.lanes * 4 * plan.size


def segments(batch, length, tiles):
    """The number of segments of a sequence, for a kernel of so many tiles of features."""
    G = 1
    if batch >= ROWS and tiles * (batch // ROWS) >= PROGRAMS // 2:
        return G
    while length // (2 * G) >= SHORTEST_SEGMENT and (
        batch * G < ROWS or tiles * (batch * G // ROWS) < PROGRAMS
    ):
        G *= 2
    return G
