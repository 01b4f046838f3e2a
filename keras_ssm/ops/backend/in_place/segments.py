"""Some steps of a sequence after others, for loops of XLA that write in place."""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known

# Numbers of a segment, which a CPU's caches hold.
TOGETHER = 2**16


def steps_together(x):
    """Steps of `(batch, length, features)` with as many numbers as a CPU's caches hold."""
    return max(1, TOGETHER // ((known(x.shape[0]) or 1) * x.shape[2]))


class Segments:
    """Some steps of tensors `(batch, length, size)` after others.

    Where the length is no multiple of the steps, the last segment begins within the one before:
    nothing is padded.

    Args:
        length: int.
        steps: int. Those of a segment, at most.
    """

    def __init__(self, length, steps):
        self.length, self.steps = length, min(steps, length)
        self.count = -(-length // self.steps)
        self.overlap = self.count * self.steps > length

    def replace(self, function, carry, tensors, reverse=False):
        """Puts what a function makes of a segment in its place, for one segment after another.

        A loop carries the parts that it reads next: XLA, which would read them again for each
        result, sees that they have been read before anything is written, and copies no tensor.

        Args:
            function: maps `(carry, i, parts)` to `(carry, results, output)`, with results of the
                shapes of the parts. What it makes of steps that are not new is dropped.
            carry: tree of tensors.
            tensors: list of tensors `(batch, length, size)`.
            reverse: bool. Whether the last segment comes first.

        Returns:
            Tuple `(carry, tensors, outputs)`, with the outputs stacked.
        """
        last = self.count - 1
        following, first = (-1, last) if reverse else (1, 0)

        def segment(state, i):
            carry, tensors, parts = state
            carry, results, output = function(carry, i, parts)
            if self.overlap:
                kept = zip(results, parts, strict=True)
                results = [ops.where(self.are_new(i), *both) for both in kept]
            put = lambda z, part: ops.slice_update(z, place(self.start(i), 1, 3), part)
            tensors = [*map(put, tensors, results)]
            return (carry, tensors, self.read(tensors, i + following)), output

        state = carry, tensors, self.read(tensors, first)
        places = ops.arange(self.count, dtype="int32")
        state, outputs = backend.sequential(segment, state, places, reverse=reverse)
        return *state[:2], outputs

    def start(self, i):
        return ops.maximum(ops.minimum(i * self.steps, self.length - self.steps), 0)

    def read(self, tensors, i):
        """Segment i of each tensor."""
        return [some_steps(z, self.start(i), self.steps) for z in tensors]

    def are_new(self, i):
        """Whether each step is of no segment before: `(steps, 1)`."""
        places = self.start(i) + ops.arange(self.steps, dtype="int32")
        return (places >= i * self.steps)[:, None]

    def new(self, part, i):
        """A part, 0 at steps that are not new."""
        return ops.where(self.are_new(i), part, ops.zeros_like(part)) if self.overlap else part


def some_steps(z, start, count):
    """So many steps of `(batch, length, size)`, from one that only the program knows."""
    return ops.slice(z, place(start, 1, 3), (ops.shape(z)[0], count, z.shape[2]))


def place(start, axis, rank):
    """Where a part begins that is whole along all axes but one. Indices have one dtype."""
    start = ops.cast(start, "int32")
    zero = ops.zeros_like(start)
    return tuple(start if i == axis else zero for i in range(rank))
