"""The kernels of `triton_walk` and `triton_parts` on sequences of one shape."""

import torch
import triton

from keras_ssm.ops.backend.torch.triton import parts as triton_parts
from keras_ssm.ops.backend.torch.triton import slopes as triton_slopes
from keras_ssm.ops.backend.torch.triton import walk as triton_walk
from keras_ssm.ops.backend.walk_plan import LARGEST, ROWS, Plan, T


class Walk:
    """The kernels on sequences of one shape, for one group of modes.

    Args:
        like: tensor `(batch, length, features)`.
        log_dA: pair of contiguous tensors `(features, modes)`.
        channels: int. Outputs of a feature that lie in one sequence.
        way: `"forward"` or `"back"`. Which of the kernels will run.
    """

    def __init__(self, like, log_dA, channels=1, way="forward"):
        exact = like.dtype != torch.bfloat16
        modes = log_dA[0].shape[1]
        self.plan = plan = Plan(*like.shape, modes, like.element_size(), exact, way)
        self.log_dA, self.batch, self.length, self.features = log_dA, *like.shape
        self.modes, self.size, self.parts = modes, plan.size, plan.parts
        self.width, self.lanes, self.G, self.S = plan.width, plan.lanes, plan.G, plan.S
        self.rows = plan.rows
        self._options = {"T": T, "NM": self.size, "PARTS": self.parts}
        self._walks = {
            "M": ROWS,
            "EXACT": exact,
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
        size, parts, features = self.plan.tile(kernel)
        options = {**self._options, **self._walks, "NM": size, "PARTS": parts, "BH": features}
        if kernel in ("ends", "moments"):
            options["SIZE"] = self.size
        grid = self.width // features, triton.cdiv(self.rows, ROWS)
        return grid, {**options, "num_warps": features * parts}

    def _segments(self, ends):
        origin = self.length - self.G * self.S if ends else 0
        return self.G, self.S, self.rows, origin
