"""Some steps of a sequence after others, for loops of JAX that write in place."""

import jax.numpy as jnp
from jax import lax


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
                results = [jnp.where(self.are_new(i), *both) for both in kept]
            put = lambda z, part: lax.dynamic_update_slice_in_dim(z, part, self.start(i), 1)
            tensors = [*map(put, tensors, results)]
            return (carry, tensors, self.read(tensors, i + following)), output

        state = carry, tensors, self.read(tensors, first)
        state, outputs = lax.scan(segment, state, jnp.arange(self.count), reverse=reverse)
        return *state[:2], outputs

    def start(self, i):
        return jnp.clip(i * self.steps, 0, self.length - self.steps)

    def read(self, tensors, i):
        """Segment i of each tensor."""
        return [lax.dynamic_slice_in_dim(z, self.start(i), self.steps, 1) for z in tensors]

    def are_new(self, i):
        """Whether each step is of no segment before: `(steps, 1)`."""
        return (self.start(i) + jnp.arange(self.steps) >= i * self.steps)[:, None]

    def new(self, part, i):
        """A part, 0 at steps that are not new."""
        return jnp.where(self.are_new(i), part, 0) if self.overlap else part
