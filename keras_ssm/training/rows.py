"""Labelled rows of equal or of different lengths, in batches of few shapes."""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.training.epoch_data import EpochData


class Part(NamedTuple):
    """Labelled rows: a part of a data set.

    Fields:
        x: array `(rows, length)` or `(rows, length, features)`, or a list of arrays `(length,)` or
            `(length, features)` of different lengths.
        y: array `(rows, ...)`. The label of each row.
    """

    x: object
    y: np.ndarray

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.y)

    def take(self, rows: np.ndarray) -> "Part":
        """Returns some of the rows, by their numbers."""
        x = self.x[rows] if isinstance(self.x, np.ndarray) else [self.x[i] for i in rows]
        return Part(x, self.y[rows])

    def spread(self, count: int) -> "Part":
        """Returns at most so many rows, at even distances."""
        return self.take(np.unique(np.linspace(0, self.size - 1, min(count, self.size), dtype=int)))


def split(part: Part, fraction: float, seed: int = 0) -> tuple[Part, Part]:
    """Splits labelled rows in two, with the same share of every label in both.

    Args:
        part: `Part` whose `y` is `(rows,)`.
        fraction: float. Share of the second part, above 0 and below 1.
        seed: int. Decides which rows. Defaults to `0`.

    Returns:
        Tuple of two `Part`s, each in the order of the rows.

    Raises:
        ValueError: for a fraction that leaves one of them empty.

    Example:
        ```python
        part = keras_ssm.training.Part(np.zeros((20, 5)), np.arange(20) % 2)
        train, validation = keras_ssm.training.split(part, 0.2)  # 16 and 4 rows
        ```
    """
    rng = np.random.default_rng(seed)
    taken = [np.zeros(0, int)]
    if 0 < fraction < 1:
        for label in np.unique(part.y):
            rows = rng.permutation(np.flatnonzero(part.y == label))
            taken.append(rows[: round(fraction * len(rows))])
    second = np.sort(np.concatenate(taken))
    if not 0 < len(second) < part.size:
        raise ValueError(
            "`fraction` must leave rows in both parts. "
            f"Received: fraction={fraction} of {part.size} rows"
        )
    return part.take(np.setdiff1d(np.arange(part.size), second)), part.take(second)


class Shapes:
    """The few lengths to which rows are padded, so that a backend compiles few programs.

    Args:
        x: rows, as in `Part`.
        count: int. Number of lengths. Rows are padded to the longest of an equal share of them.
        key: str. `"inputs"` or `"token_ids"`.
    """

    def __init__(self, x: object, count: int = 4, key: str = "inputs"):
        check_positive(count=count)
        self.x = x
        self.key = key
        self.row_lengths = np.array([len(row) for row in x])
        ends = np.quantile(self.row_lengths, np.arange(1, count + 1) / count, method="higher")
        self.lengths = np.unique(ends).astype(int)

    def groups(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields each length and the rows that are padded to it, in the order given."""
        positions = np.searchsorted(self.lengths, self.row_lengths[rows])
        for i, length in enumerate(self.lengths):
            yield int(length), rows[positions == i]

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns rows as one padded array and its `padding_mask`."""
        longest = self.row_lengths[rows].max()
        length = int(self.lengths[np.searchsorted(self.lengths, longest)])
        mask = np.arange(length) < self.row_lengths[rows][:, None]
        if isinstance(self.x, np.ndarray):
            padded = self.x[rows]
        else:
            first = np.asarray(self.x[rows[0]])
            padded = np.zeros((len(rows), length, *first.shape[1:]), first.dtype)
            for row, values in zip(padded, (self.x[i] for i in rows), strict=True):
                row[: len(values)] = values
        if self.key == "inputs":
            padded = padded.astype("float32")
            padded = padded[..., None] if padded.ndim == 2 else padded
        else:
            padded = padded.astype("int32")
        return {self.key: padded, "padding_mask": mask}


class ShuffledRows(EpochData):
    """All rows of a part in each epoch, in an order that the seed and the epoch decide.

    Every batch has `batch_size` rows. Rows of similar length share a batch and are
    padded to one of a few lengths. Rows that are left over join those of the next longer one. The
    last batch is filled up with rows that count twice in that epoch.

    Args:
        part: `Part`.
        batch_size: int. Rows a batch.
        seed: int. Seed of the run.
        lengths: int. To how many lengths rows are padded. Defaults to `4`.
        key: str. `"inputs"`, or `"token_ids"` for models that read tokens.

    Example:
        ```python
        rows = [np.zeros((n, 2)) for n in (5, 8, 6, 7)]
        part = keras_ssm.training.Part(rows, np.array([0, 1, 0, 1]))
        data = keras_ssm.training.ShuffledRows(part, batch_size=2, seed=0)
        x, y = data[0]  # x is a dict of `inputs` and `padding_mask`
        ```
    """

    def __init__(
        self, part: Part, batch_size: int, seed: int, lengths: int = 4, key: str = "inputs"
    ):
        check_positive(batch_size=batch_size)
        super().__init__(seed, batches=-(-part.size // batch_size))
        self.part = part
        self.batch_size = batch_size
        self.shapes = Shapes(part.x, lengths, key)
        self._order = None, None

    def __getitem__(self, index):
        epoch, order = self._order
        if epoch != self.epoch:
            order = self.order(np.random.default_rng([self.seed, self.epoch]))
            self._order = self.epoch, order
        rows = order[index]
        x, y = self.shapes.batch(rows), self.part.y[rows]
        return self.augment(x, y, np.random.default_rng([self.seed, self.epoch, index]))

    def augment(self, x: dict, y: np.ndarray, rng: np.random.Generator) -> tuple:
        """Returns a batch as the model is to see it; a subclass may change it, by `rng` alone."""
        return x, y

    def order(self, rng: np.random.Generator) -> list[np.ndarray]:
        """The rows of each batch of an epoch."""
        size, batches, left_over = self.batch_size, [], np.zeros(0, int)
        for _, rows in self.shapes.groups(rng.permutation(self.part.size)):
            rows = np.concatenate([left_over, rows])
            whole = len(rows) // size * size
            batches += list(rows[:whole].reshape(-1, size))
            left_over = rows[whole:]
        if len(left_over):
            repeated = rng.integers(self.part.size, size=size - len(left_over))
            batches.append(np.concatenate([left_over, repeated]))
        return [batches[i] for i in rng.permutation(len(batches))]


def predict(
    model: keras.Model, x: object, batch_size: int, lengths: int = 4, key: str = "inputs"
) -> np.ndarray:
    """Returns the outputs of a model for rows of equal or of different lengths, in their order.

    Args:
        model: Keras model of one output a row.
        x: rows, as in `Part`.
        batch_size: int. Rows a batch; all batches have that many.
        lengths: int. To how many lengths rows are padded. Defaults to `4`.
        key: str. `"inputs"`, or `"token_ids"` for models that read tokens.

    Returns:
        Array `(rows, ...)`.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        logits = keras_ssm.training.predict(model, [np.zeros(64), np.zeros(50)], batch_size=2)
        ```
    """
    shapes = Shapes(x, lengths, key)
    by_row = [None] * len(shapes.row_lengths)
    for _, rows in shapes.groups(np.arange(len(by_row))):
        for start in range(0, len(rows), batch_size):
            batch_rows = rows[start : start + batch_size]
            outputs = model.predict_on_batch(shapes.batch(np.resize(batch_rows, batch_size)))
            for row, output in zip(batch_rows, np.asarray(outputs), strict=False):
                by_row[row] = output
    return np.stack(by_row)
