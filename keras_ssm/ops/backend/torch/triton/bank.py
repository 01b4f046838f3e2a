"""The kernels of `triton_walk` and `triton_parts` on sequences of one shape."""

import torch
import triton

from keras_ssm.ops.backend.kernel_support import padded
from keras_ssm.ops.backend.torch.triton import parts as triton_parts
from keras_ssm.ops.backend.torch.triton import slopes as triton_slopes
from keras_ssm.ops.backend.torch.triton import walk as triton_walk

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


class Walk:
    """The kernels on sequences of one shape, for one group of modes.

    Args:
        like: tensor `(batch, length, features)`.
        log_dA: pair of contiguous tensors `(features, modes)`.
        channels: int. Outputs of a feature that lie in one sequence.
        way: `"forward"` or `"back"`. Which of the kernels will run.
    """

    def __init__(self, like, log_dA, channels=1, way="forward"):
        self.batch, self.length, self.features = like.shape
        self.log_dA, self.modes = log_dA, log_dA[0].shape[1]
        self._tiles = TILES[4 if like.dtype == torch.float32 else 2]
        size, features, _ = self._tiles["outputs" if way == "forward" else "slopes"]
        self.size = max(size, MANY_MODES) if self.modes > MANY_MODES else size
        self.size = min(self.size, padded(self.modes))  # modes of a lane
        self.parts = padded(-(-self.modes // self.size), 1)
        self.width = -(-self.features // WIDTH) * WIDTH
        self.lanes = self.width * self.parts
        self.G = segments(self.batch, self.length, -(-self.features // features))
        self.S = -(-self.length // (self.G * T)) * T
        self.rows = self.batch * self.G
        self._options = {"T": T, "NM": self.size, "PARTS": self.parts}
        self._walks = {
            "M": ROWS,
            "EXACT": like.dtype != torch.bfloat16,
            "LONG": like.numel() * channels > LARGEST,
        }
        self._new = log_dA[0].new_empty

    def matrices(self, C, dB, D, normal, first=1):
        """F, E, K and A of a plane, for outputs 2 Re(C x); `normal` makes dB a part of C.

        Entry i of E belongs to the power i + `first`.
        """
        none = self.log_dA[0]
        F = self._new((self.lanes, 2, T, self.size))
        K = self._new((self.width, T))
        E, A = torch.empty_like(F), self._new((self.lanes, 2, self.size))
        triton_parts.matrices[(self.width,)](
            *self.log_dA,
            *C,
            *(dB or (none, none)),
            none if D is None else D,
            F,
            E,
            K,
            A,
            self.features,
            self.modes,
            first,
            DRIVEN=bool(dB),
            NORMAL=normal,
            DIRECT=D is not None,
            num_warps=1,
            **self._options,
        )
        return F, E, K, A

    def starts(
        self,
        x,
        matrices,
        way,
        lag=0,
        initial=None,
        lengths=None,
        moment=False,
        ends=False,
        last=False,
    ):
        """States before each segment, and after the last one where they are wanted.

        Args:
            x: tensor `(batch, length, features)` or `None`. Inputs; none are zeros.
            matrices: what `matrices` returned.
            way: 1 or -1. Whether the walk goes forwards or backwards.
            lag: int. How much later an input counts.
            initial: tensor `(batch, features, 2 size)` or `None`; a view of it begins at the
                first mode of the group.
            lengths: integer tensor `(batch,)` or `None`. Steps of each row.
            moment: bool. Whether there is a second state.
            ends: bool. Whether the segments end where the sequences do, and not begin there.
            last: bool. Whether the state after the last segment is wanted.
        """
        size = (self.lanes, 4 if moment else 2, self.size)
        start = self._new((self.rows, *size))
        final = self._new((self.batch, *size)) if last else start
        walked = x is not None and (last or self.G > 1)
        end = torch.empty_like(start) if walked else start
        if walked:
            F, _, _, A = matrices
            grid, options = self._launch("moments" if moment else "ends")
            triton_walk.ends[grid](
                x,
                end,
                F,
                A,
                x if lengths is None else lengths,
                self.length,
                self.features,
                self.lanes,
                x.stride(1),
                *self._segments(ends),
                way,
                lag,
                MOMENT=moment,
                BY_ROW=lengths is not None,
                **options,
            )
        triton_parts.starts[(triton.cdiv(self.batch * self.lanes * self.size, 256),)](
            *self.log_dA,
            end,
            start if initial is None else initial,
            start,
            final,
            self.features,
            self.lanes,
            self.modes,
            self.batch,
            0 if initial is None else initial.stride(1) // 2,
            self.G,
            self.S,
            NM=self.size,
            PARTS=self.parts,
            BLOCK=256,
            MOMENT=moment,
            ENDS=walked,
            INITIAL=initial is not None,
            LAST=last,
        )
        return start, final

    def outputs(self, x, y, start, matrices, way, lag=0, lengths=None, add=False):
        """Writes the outputs into y, or adds them to it."""
        grid, options = self._launch("outputs")
        triton_walk.outputs[grid](
            x,
            y,
            start,
            *matrices,
            x if lengths is None else lengths,
            self.length,
            self.features,
            self.lanes,
            x.stride(1),
            y.stride(1),
            *self._segments(False),
            way,
            lag,
            ADD=add,
            BY_ROW=lengths is not None,
            **options,
        )

    def slopes(self, u, dy, du, start, matrices, way, lag=0, add=False):
        """Writes the gradient of the inputs into du, if any; returns what `gather` takes."""
        grid, options = self._launch("slopes")
        sums = self._new((grid[1], self.lanes, 4, self.size))
        lags = self._new((grid[1], self.width, T, T))
        to = u if du is None else du
        triton_slopes.slopes[grid](
            u,
            dy,
            to,
            start,
            sums,
            lags,
            *matrices,
            self.length,
            self.features,
            self.lanes,
            u.stride(1),
            dy.stride(1),
            to.stride(1),
            *self._segments(True),
            way,
            lag,
            ADD=add,
            INPUT=du is not None,
            **options,
        )
        return sums, lags

    def gather(self, sums, C, dB, d_log_dA, d_C, d_dB, d_D, add):
        """Writes the gradients of a plane; adds to those of log a and dB."""
        none = self.log_dA
        triton_parts.gather[(self.features,)](
            *sums,
            *self.log_dA,
            *C,
            *(dB or none),
            *d_log_dA,
            *d_C,
            *(d_dB or none),
            none[0] if d_D is None else d_D,
            self.lanes,
            self.modes,
            sums[0].shape[0],
            DRIVEN=bool(dB),
            DIRECT=d_D is not None,
            ADD=add,
            **self._options,
        )

    def numbers(self, states):
        """The states after the last segment as complex `(batch, features, modes)`, one or two."""
        states = states.unflatten(1, (self.width, self.parts))[:, : self.features]
        states = states.transpose(2, 3).flatten(3)[..., : self.modes]
        return [torch.complex(*pair.unbind(2)) for pair in states.split(2, dim=2)]

    def _launch(self, kernel):
        size, features, lanes = self._tiles[kernel]
        options = {**self._options, **self._walks}
        if kernel in ("ends", "moments"):
            size = max(self.size, min(size, self.size * self.parts))
            options.update(NM=size, SIZE=self.size, PARTS=self.size * self.parts // size)
        if self.size == MANY_MODES and options["EXACT"]:
            lanes = min(lanes, 8)  # more would not fit the registers
        features = max(1, min(features, lanes // options["PARTS"]))
        grid = self.width // features, triton.cdiv(self.rows, ROWS)
        return grid, {**options, "BH": features, "num_warps": features * options["PARTS"]}

    def _segments(self, ends):
        origin = self.length - self.G * self.S if ends else 0
        return self.G, self.S, self.rows, origin


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
