from keras import ops

from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import Tensor


class DenseBank:
    """Dense real single-input single-output systems, one a feature, as the evaluations use them.

    Every feature runs x' = x + (E x + dB u), y = C x', with E = dA - I. Powers of dA are kept
    as dA^n - I throughout: rounding I + E would lose the digits of a small E. They come by
    doubling, dA^(2n) - I = 2 F + F^2 with F = dA^n - I.

    Args:
        E: tensor `(features, states, states)`. State transition less the identity.
        dB: tensor `(features, states)`. Discrete input vectors.
        C: tensor `(channels, features, states)`. Output vectors.

    Example:
        ```python
        bank = DenseBank(-0.5 * ops.ones((1, 1, 1)), ops.ones((1, 1)), ops.ones((1, 1, 1)))
        keras_ssm.ops.kernel(bank, 3)  # 1, 0.5, 0.25
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), equations 3 to 5, without a Cauchy kernel.
    """

    is_diagonal = False

    def __init__(self, E: Tensor, dB: Tensor, C: Tensor):
        self.dB, self.C = dB, C
        self._doublings = [E]  # entry k is dA^(2^k) - I

    @property
    def readout(self):
        """Output vectors, `(channels, features, states)`."""
        return self.C

    def matrices(self):
        """Returns `(E, dB, C)`."""
        return self._doublings[0], self.dB, self.C

    def normalised(self):
        """Returns the bank itself."""
        return self

    def channels_apart(self, count):
        """Returns the bank of `count * features` features, of which each channel has its own."""
        E, dB = ops.tile(self._doublings[0], (count, 1, 1)), ops.tile(self.dB, (count, 1))
        C = ops.reshape(self.C, (-1, count * self.C.shape[1], self.C.shape[2]))
        return DenseBank(E, dB, C)

    def into_state(self, steps):
        """Returns dA^t dB for t < steps, `(features, states, steps)`."""
        columns, k = self.dB[..., None], 0
        while columns.shape[-1] < steps:
            more = columns + exact_einsum("hij,hjt->hit", self._doubled(k), columns)
            columns, k = ops.concatenate([columns, more], axis=-1), k + 1
        return columns[..., :steps]

    def from_state(self, rows, first, count, stride=1):
        """Returns rows dA^(first + i stride) for i < count.

        Args:
            rows: tensor `(channels, features, states)`, as `readout`.
            first: int. Exponent of the first.
            count: int.
            stride: int.

        Returns:
            Tensor `(channels, features, states, count)`.
        """
        for k in _bits(first):
            rows = rows + exact_einsum("chi,hij->chj", rows, self._doubled(k))
        rows, doublings = rows[..., None], DenseBank(self.power(stride), self.dB, self.C)
        if stride == 1:
            doublings = self
        k = 0
        while rows.shape[-1] < count:
            more = rows + exact_einsum("chit,hij->chjt", rows, doublings._doubled(k))
            rows, k = ops.concatenate([rows, more], axis=-1), k + 1
        return rows[..., :count]

    def advance(self, state, steps, most=None):
        """Returns dA^steps x.

        Args:
            state: tensor `(features, batch, states)`.
            steps: int, or integer tensor `(batch,)`.
            most: int or `None`. Largest value that a tensor `steps` can have.

        Returns:
            Tensor `(features, batch, states)`.
        """
        if isinstance(steps, int):
            for k in _bits(steps):
                state = state + self._applied(k, state)
            return state
        for k in range(most.bit_length()):
            due = (steps // 2**k) % 2 == 1
            state = ops.where(due[None, :, None], state + self._applied(k, state), state)
        return state

    def transition(self, steps):
        """Returns dA^steps - I as `ops.state_passing` takes it, `(features, states, states)`."""
        return self.power(steps)

    def by_feature(self, steps):
        """Returns `None`: powers of matrices are better computed for all features at once."""
        return None

    def _doubled(self, k):
        """dA^(2^k) - I."""
        while len(self._doublings) <= k:
            F = self._doublings[-1]
            self._doublings.append(2.0 * F + exact_einsum("hij,hjk->hik", F, F))
        return self._doublings[k]

    def power(self, n):
        """Returns dA^n - I.

        Args:
            n: int, or scalar integer tensor below 2^24. At least 1.

        Returns:
            Tensor `(features, states, states)`.
        """
        if not isinstance(n, int):
            F = ops.zeros_like(self._doublings[0])
            for k in range(24):
                G = self._doubled(k)
                longer = F + G + exact_einsum("hij,hjk->hik", F, G)
                F = ops.where((n // 2**k) % 2 == 1, longer, F)
            return F
        first, *others = _bits(n)
        F = self._doubled(first)
        for k in others:
            G = self._doubled(k)
            F = F + G + exact_einsum("hij,hjk->hik", F, G)
        return F

    def _applied(self, k, state):
        return exact_einsum("hij,hbj->hbi", self._doubled(k), state)


def _bits(n):
    """The exponents of two that add up to n."""
    return [k for k in range(n.bit_length()) if n >> k & 1]
