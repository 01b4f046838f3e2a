import numpy as np
from keras import ops

from keras_ssm.ops import pair
from keras_ssm.ops.powers import powers


class DiagonalBank:
    """Diagonal single-input single-output systems, one a feature, as the evaluations use them.

    Every feature runs x' = dA x + dB u, y = 2 Re(C x'). A bank gives the evaluations
    (`chunked`, `kernel`, `recurrent`) real matrices on real states, which have real parts, then
    imaginary parts, on their last axis.

    Args:
        log_dA: pair of tensors `(features, modes)`. Logarithm of the state transition.
        dB: pair of tensors `(features, modes)`. Discrete input vectors.
        C: pair of tensors `(channels, features, modes)`. Output vectors.

    Example:
        ```python
        log_dA = ops.convert_to_tensor([[-0.5]]), ops.convert_to_tensor([[1.0]])
        dB = ops.ones((1, 1)), ops.zeros((1, 1))
        bank = DiagonalBank(log_dA, dB, (ops.ones((1, 1, 1)), ops.zeros((1, 1, 1))))
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equations 3 and 7.
    """

    def __init__(self, log_dA, dB, C):
        self.log_dA, self.dB, self.C = log_dA, dB, C
        self._table = None

    @property
    def state_size(self):
        """Real numbers in the state of a feature."""
        return 2 * self.log_dA[0].shape[-1]

    @property
    def readout(self):
        """Output vectors as real rows on real states, `(channels, features, states)`."""
        return 2.0 * pair.join(pair.conjugate(self.C))

    def matrices(self):
        """Returns `(dA, dB, C)`, real parts then imaginary parts on the last axis."""
        return pair.join(pair.exp(self.log_dA)), pair.join(self.dB), pair.join(self.C)

    def into_state(self, steps):
        """Returns dA^t dB for t < steps, `(features, states, steps)`."""
        table = self._consecutive(0, steps)
        dB = self.dB[0][..., None], self.dB[1][..., None]
        return ops.concatenate(pair.multiply(dB, table), axis=1)

    def from_state(self, rows, first, count, stride=1):
        """Returns rows dA^(first + i stride) for i < count.

        Args:
            rows: tensor `(channels, features, states)`, as `readout`.
            first: int. Exponent of the first.
            count: int or scalar tensor.
            stride: int.

        Returns:
            Tensor `(channels, features, states, count)`.
        """
        if stride == 1:
            table = self._consecutive(first, count)
        else:
            order = np.arange(count) if isinstance(count, int) else ops.arange(0, count)
            table = powers(self.log_dA, first + stride * order)
        row = tuple(part[..., None] for part in pair.conjugate(pair.split(rows)))
        return ops.concatenate(pair.conjugate(pair.multiply(row, table)), axis=2)

    def advance(self, state, steps, most=None):
        """Returns dA^steps x.

        Args:
            state: tensor `(features, batch, states)`.
            steps: int, or integer tensor `(batch,)`.
            most: int or `None`. Largest value that a tensor `steps` can have; not needed here.

        Returns:
            Tensor `(features, batch, states)`.
        """
        if not isinstance(steps, int):
            steps = ops.cast(steps, state.dtype)[None, :, None]
        power = pair.exp(tuple(part[:, None] * steps for part in self.log_dA))
        return pair.join(pair.multiply(power, pair.split(state)))

    def transition(self, steps):
        """Returns dA^steps as `ops.carry` takes it, `(features, states)`."""
        return pair.join(pair.exp(pair.scale(self.log_dA, float(steps))))

    def _consecutive(self, first, count):
        """dA^first and the following powers; those of a chunk serve input and output."""
        if self._table is None or self._table[0].shape[-1] < first + count:
            self._table = powers(self.log_dA, np.arange(first + count + 1))
        return tuple(part[..., first : first + count] for part in self._table)
