"""The row-wise softmax of a `DSS`: its modes, growing and decaying, with their weights."""

from keras import ops

from keras_ssm.ops import pair
from keras_ssm.ops.diagonal_bank import DiagonalBank

EPSILON = 1e-7


class Softmax:
    """What a `DSS` computes of its modes where its kernel is normalised over a length."""

    def _normalised_over(self, length):
        """The length of the softmax for a sequence of `length` steps, or in a stream (`None`)."""
        fixed = self.softmax_length
        if fixed is None:
            return length
        if isinstance(length, int) and length > fixed:
            raise ValueError(
                f"`x` of {self.name} must have at most `softmax_length` steps. "
                f"Received: {length} steps, softmax_length={fixed}"
            )
        return fixed

    def _softmax(self, A, z, length):
        """Which modes grow `(state_dim,)`, their decaying form, and the normalised weights."""
        length = ops.cast(length, z[0].dtype)
        growing = A[0] > 0
        sign = ops.where(growing, -ops.ones_like(A[0]), ops.ones_like(A[0]))
        decaying = pair.scale(z, sign)
        x = pair.multiply(pair.expm1(pair.scale(decaying, length)), A)
        square = x[0] * x[0] + x[1] * x[1] + EPSILON
        weights = pair.multiply(pair.expm1(decaying), (x[0] / square, -x[1] / square))
        return growing, decaying, weights

    def _branches(self, normalised, length):
        """The bank of the decaying modes, and `(log_decay, C)` of the growing ones.

        Which is which is a matter of the weights, so each branch holds every mode, and those of
        the other with a weight of zero.
        """
        A, z, C = self._continuous()
        growing, decaying, weights = self._softmax(A, z, normalised)
        # As published, no gradient flows through the shift of a growing mode by L - 1 steps.
        still = tuple(part - ops.stop_gradient(part) for part in z)
        still = pair.exp(pair.scale(still, ops.cast(normalised, z[0].dtype) - 1.0))
        weights = tuple(
            ops.where(growing, shifted, part)
            for shifted, part in zip(pair.multiply(weights, still), weights, strict=True)
        )
        weighed = pair.scale(pair.multiply(C, weights), 0.5)
        forwards = tuple(ops.where(growing, 0.0, part) for part in weighed)
        backwards = tuple(ops.where(growing, part, 0.0) for part in weighed)
        if self.softmax_length is not None:
            missing = ops.cast(normalised, z[0].dtype) - ops.cast(length, z[0].dtype)
            backwards = pair.multiply(backwards, pair.exp(pair.scale(decaying, missing)))
        ones = ops.ones_like(z[0]), ops.zeros_like(z[0])
        return DiagonalBank(decaying, ones, forwards), (decaying, backwards)
