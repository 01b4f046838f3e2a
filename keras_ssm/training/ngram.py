import numpy as np

from keras_ssm.checks import check_positive

SYMBOLS = 256


class NGram:
    """Probabilities of the next byte from the bytes just before it: interpolated Kneser-Ney.

    N-grams are counted, and nothing is trained. After a context each count is lowered by a
    discount. The sum of the discounts is the weight of the context without its first byte, where an
    n-gram counts once for each different byte before it. With no context left, all bytes are alike.

    Args:
        order: int from 1 to 7. Bytes of an n-gram, the predicted one among them. Defaults to `5`.

    Example:
        ```python
        model = keras_ssm.training.NGram(order=3)
        ids = np.frombuffer(b"to be or not to be", np.uint8)
        model.fit(ids)
        bits = -np.log2(model.probabilities(ids)).mean()  # all but the first byte
        ```

    Reference:
        S. Chen and J. Goodman (1999), An Empirical Study of Smoothing Techniques for Language
        Modeling, section 3: interpolated, with one discount for each order.
    """

    def __init__(self, order: int = 5):
        (self.order,) = check_positive(order=order)
        if self.order > 7:
            raise ValueError(f"`order` must lie from 1 to 7. Received: order={order}")
        self.levels = []

    def fit(self, ids: np.ndarray) -> None:
        """Counts the n-grams of a text.

        Args:
            ids: int array `(bytes,)` from 0 to 255, longer than `order`.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1 or len(ids) <= self.order or ids.min() < 0 or ids.max() >= SYMBOLS:
            raise ValueError(
                f"`ids` must be more than {self.order} bytes from 0 to 255 in one row. "
                f"Received: ids.shape={ids.shape}"
            )
        self.levels = []
        for n in range(1, self.order + 1):
            if n == self.order:
                grams, counts = np.unique(_codes(ids, n), return_counts=True)
            else:  # the number of different bytes before it
                longer = np.unique(_codes(ids, n + 1))
                grams, counts = np.unique(longer % SYMBOLS**n, return_counts=True)
            self.levels.append(_Level(grams, counts))

    def count_params(self) -> int:
        """Number of n-grams that were counted, of every length."""
        return sum(len(level.grams) for level in self.levels)

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Returns the probability of each byte but the first after those before it.

        Args:
            ids: int array `(..., length)`. What was before a row is not known.

        Returns:
            Float array `(..., length - 1)`.
        """
        ids = np.asarray(ids, "int64")
        probabilities = np.full(ids[..., 1:].shape, 1.0 / SYMBOLS)
        for n, level in enumerate(self.levels, 1):
            start = max(0, n - 2)  # before it there are too few bytes
            codes = _codes(ids, n)[..., max(0, 2 - n) :]
            probabilities[..., start:] = level.interpolated(codes, probabilities[..., start:])
        return probabilities


class _Level:
    """The n-grams of one length: their counts, and those of their contexts."""

    def __init__(self, grams, counts):
        self.grams, self.counts = grams, counts.astype("float64")
        once, twice = ((counts == i).sum() for i in (1, 2))
        self.discount = once / (once + 2 * twice) if once else 0.5
        self.contexts, start = np.unique(grams // SYMBOLS, return_index=True)
        self.totals = np.add.reduceat(self.counts, start)
        self.kinds = np.diff(np.append(start, len(grams))).astype("float64")

    def interpolated(self, codes, shorter):
        """The probabilities of n-grams, from those without their first byte."""
        count = _looked_up(self.grams, self.counts, codes)
        total = _looked_up(self.contexts, self.totals, codes // SYMBOLS)
        kinds = _looked_up(self.contexts, self.kinds, codes // SYMBOLS)
        seen, total = total > 0, np.maximum(total, 1.0)
        interpolated = (
            np.maximum(count - self.discount, 0.0) + self.discount * kinds * shorter
        ) / total
        return np.where(seen, interpolated, shorter)


def _codes(ids, n):
    """The n-grams as numbers, the first byte the largest digit."""
    ids = np.asarray(ids, "int64")
    length = max(0, ids.shape[-1] - n + 1)
    codes = np.zeros((*ids.shape[:-1], length), "int64")
    for i in range(n):
        codes = codes * SYMBOLS + ids[..., i : i + length]
    return codes


def _looked_up(keys, values, wanted):
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0.0)
