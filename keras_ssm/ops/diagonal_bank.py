import numpy as np
from keras import ops

from keras_ssm.ops import pair
from keras_ssm.ops.powers import known_powers, power, powers
from keras_ssm.types import Pair


class DiagonalBank:
    """Diagonal single-input single-output systems, one a feature, as the evaluations use them.

    Every feature runs x' = dA x + dB u, y = 2 Re(C x'). A bank gives the evaluations
    (`chunked`, `kernel`, `recurrent`) real matrices on real states, which have real parts, then
    imaginary parts, on their last axis.

    Args:
        log_dA: pair of tensors `(features, modes)`. Logarithm of the state transition.
        dB: pair of tensors `(features, modes)`, or `None` for ones. Discrete input vectors.
        C: pair of tensors `(channels, features, modes)`. Output vectors.
        normal: bool. Whether C dB is a float; that of the softmax of `DSS` may be too large.
            Defaults to `True`.

    Example:
        ```python
        log_dA = ops.convert_to_tensor([[-0.5]]), ops.convert_to_tensor([[1.0]])
        dB = ops.ones((1, 1)), ops.zeros((1, 1))
        bank = DiagonalBank(log_dA, dB, (ops.ones((1, 1, 1)), ops.zeros((1, 1, 1))))
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equations 3 and 7.
    """

    is_diagonal = True

    def __init__(self, log_dA: Pair, dB: Pair | None, C: Pair, normal: bool = True):
        self.log_dA, self.dB, self.C = log_dA, dB, C
        self.normal = normal
        self._table = None
        self._single = {}

    @property
    def readout(self):
        """Output vectors as real rows on real states, `(channels, features, states)`."""
        return 2.0 * pair.join(pair.conjugate(self.C))

    def matrices(self):
        """Returns `(dA, dB, C)`, real parts then imaginary parts on the last axis."""
        return pair.join(pair.exp(self.log_dA)), pair.join(self.dB), pair.join(self.C)

    def normalised(self):
        """Returns a bank of the same kernel with dB = 1, whose states are x / dB.

        C dB must be a float: of `DSS` with a softmax, which keeps halves of a huge factor in both,
        it is not, and no such bank comes here.
        """
        if self.dB is None:
            return self
        return DiagonalBank(self.log_dA, None, pair.multiply(self.C, self.dB))

    def channels_apart(self, count):
        """Returns the bank of `count * features` features, of which each channel has its own."""

        def tiled(pair):
            return pair and tuple(ops.tile(part, (count, 1)) for part in pair)

        C = tuple(ops.reshape(part, (-1, count * part.shape[1], part.shape[2])) for part in self.C)
        return DiagonalBank(tiled(self.log_dA), tiled(self.dB), C, self.normal)

    def into_state(self, steps):
        """Returns dA^t dB for t < steps, `(features, states, steps)`."""
        table = self._powers(steps)
        if self.dB is None:
            return ops.concatenate(table, axis=1)
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
            table = self._powers(count)
        else:
            order = np.arange(count) if isinstance(count, int) else ops.arange(0, count)
            table = powers(self.log_dA, stride * order)
        row = pair.conjugate(pair.split(rows))
        if first:
            row = pair.multiply(row, self._power(first))
        single = rows.shape[0] == 1  # XLA is slower with a spare axis
        row = tuple((part[0] if single else part)[..., None] for part in row)
        result = ops.concatenate(pair.conjugate(pair.multiply(row, table)), axis=-2)
        return result[None] if single else result

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
        """Returns dA^steps as `ops.state_passing` takes it, `(features, states)`."""
        return pair.join(self._power(steps))

    def by_feature(self, steps):
        """What the bank holds, for a part of the features at a time.

        Args:
            steps: int. Number of consecutive powers that will be asked of it.

        Returns:
            Tuple `(tensors, fixed)` of nests of tensors with the features on the first axis, of
            which `fixed` needs no gradient. `of_features` makes a bank of slices of both.
        """
        fixed = tuple(ops.stop_gradient(part) for part in self._powers(steps))
        tensors = {
            "log_dA": self.log_dA,
            "dA": self._power(1),
            "over_steps": self._power(steps),
            "C": tuple(ops.transpose(part, (1, 0, 2)) for part in self.C),
            "dB": self.dB,
        }
        return tensors, fixed

    @staticmethod
    def of_features(tensors, fixed, steps):
        """Returns the bank of slices of what `by_feature` returned; `fixed` may be `None`."""
        C = tuple(ops.transpose(part, (1, 0, 2)) for part in tensors["C"])
        bank = DiagonalBank(tensors["log_dA"], tensors["dB"], C)
        if fixed is not None:
            bank._table = known_powers(bank.log_dA, fixed)
        bank._single = {1: tensors["dA"], steps: tensors["over_steps"]}
        return bank

    def _power(self, exponent):
        """dA^exponent."""
        if exponent not in self._single:
            self._single[exponent] = power(self.log_dA, float(exponent))
        return self._single[exponent]

    def _powers(self, count):
        """dA^l for l < count; those of a chunk serve input and output."""
        if self._table is None or self._table[0].shape[-1] < count:
            self._table = powers(self.log_dA, np.arange(count))
        if self._table[0].shape[-1] == count:
            return self._table
        return tuple(part[..., :count] for part in self._table)
