from typing import NamedTuple, Self

from keras import ops


class DiscreteSystem(NamedTuple):
    """The matrices of one step, x' = dA x + dB u and y = dC x' + D u.

    Diagonal systems have real parts, then imaginary parts, on the last axis and keep one mode of
    each conjugate pair, so that y = 2 Re(dC x'). Dense ones are real. They hold the factors of
    dA - I (`ops.dplr_factors`), and a step uses these: it takes O(N) operations, and keeps the
    digits that rounding dA would lose. Of a layer that holds its kernel dA and dB are `None`: its
    state is the last inputs, which move by one place, and `dC` holds the kernel. `H3` has both: a
    diagonal system, and in `taps` the kernel of its shift part, lag 0 last.
    """

    dA: object
    dB: object
    dC: object
    D: object
    low_rank: object = None
    taps: object = None

    def on_device(self) -> Self:
        """The same matrices on the device of the layers."""
        *matrices, low_rank, taps = self
        matrices = [None if m is None else ops.convert_to_tensor(m) for m in matrices]
        if low_rank is not None:
            low_rank = tuple(map(ops.convert_to_tensor, low_rank))
        taps = None if taps is None else ops.convert_to_tensor(taps)
        return DiscreteSystem(*matrices, low_rank, taps)
