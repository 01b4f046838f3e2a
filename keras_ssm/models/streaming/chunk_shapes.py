"""The shapes in which a chunk may come."""

from typing import NamedTuple

import numpy as np

from keras_ssm.models.trainer.targets import to_numpy

TEXTS = (str, bytes)


class ChunkShapes(NamedTuple):
    """The shape that the chunks of a stream have.

    Fields:
        batch_size: int. Rows.
        features: int or `None`. Features of a step; `None` where a preprocessor decides.
        tokens: bool. Whether the steps are token ids, without an axis of features.
        texts: bool. Whether rows may be texts, read as their bytes.
    """

    batch_size: int
    features: int | None
    tokens: bool = False
    texts: bool = False

    def read(self, x: object) -> tuple[np.ndarray, np.ndarray]:
        """Reads a chunk as an array `(batch, steps, ...)`, with the mask of its valid steps.

        Raises:
            ValueError: for another shape.
        """
        rows = self._rows(x)
        if isinstance(rows, list):
            return self._padded(rows)
        x = self._with_batch(rows)
        return x, np.ones(x.shape[:2], bool)

    def _rows(self, x):
        """A list of rows, or an array."""
        if isinstance(x, TEXTS):
            x = [x]
        if isinstance(x, (list, tuple)) and any(isinstance(row, TEXTS) for row in x):
            if not self.texts:
                raise ValueError(
                    "`chunk` must hold numbers, the samples of a sound or the ids of tokens: which "
                    "tokens a text has may depend on what follows, so a stream takes their ids. "
                    f"Received: {x[0]!r}"
                )
            x = [np.frombuffer(r.encode() if isinstance(r, str) else r, np.uint8) for r in x]
        elif not isinstance(x, (list, tuple)):
            x = to_numpy(x)
            if x.dtype != object:
                return x
            x = list(x)
        elif self.batch_size == 1 and (len(x) != 1 or np.ndim(x[0]) == 0):
            return to_numpy(x)  # the steps of the one row
        if len(x) != self.batch_size or any(np.ndim(row) == 0 for row in x):
            if len(x) == self.batch_size:
                return to_numpy(x)  # one number for each row
            raise self._other(f"a list of {len(x)}")
        return [to_numpy(row) for row in x]

    def _padded(self, rows):
        width = None if self.tokens else self.features
        for i, row in enumerate(rows):
            if row.ndim == 1 and width is not None:
                rows[i] = row[:, None] if width == 1 or not row.size else row[None]
                if row.size == 0:
                    rows[i] = np.zeros((0, width), row.dtype)
        shapes = {row.shape[1:] for row in rows}
        if len(shapes) != 1 or (width is not None and shapes != {(width,)}):
            raise self._other(f"rows of shapes {[row.shape for row in rows]}")
        steps = max(len(row) for row in rows)
        kind = np.result_type(*rows)
        padded = np.zeros((len(rows), steps, *shapes.pop()), kind)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = row
        return padded, np.arange(steps) < np.array([[len(row)] for row in rows])

    def _with_batch(self, x):
        """An array as `(batch, steps, features)`, or `(batch, steps)` for token ids."""
        batch, shape, features = self.batch_size, x.shape, self.features
        if features is None:  # a custom preprocessor chooses its own inputs
            if batch == 1 and x.ndim < 2:
                return x.reshape(1, -1)
            if batch == 1 and x.ndim == 2 and (shape[1] == 1 or shape[0] > 1):
                return x[None]  # (steps, channels)
            if x.ndim < 2 or len(x) != batch or (batch == 1 and x.ndim == 2):
                raise self._other(f"shape {shape}")
            return x
        if self.tokens or (features == 1 and x.ndim < 3):
            if x.ndim == 0 or (x.ndim == 1 and batch == 1):
                x = x.reshape(1, -1)
            elif x.ndim == 1:
                x = x[:, None]
            elif not self.tokens and batch == 1 and shape[1] == 1:
                x = x.reshape(1, -1)
            fits = x.ndim == 2 and len(x) == batch
            x = x if self.tokens or not fits else x[..., None]
        else:
            if x.ndim == 1:
                x = x[None]
            if x.ndim == 2:
                x = x[None] if batch == 1 else x[:, None]
            fits = x.ndim == 3 and len(x) == batch and x.shape[2] == features
        if not fits:
            raise self._other(f"shape {shape}")
        return x

    def _other(self, received):
        features = "" if self.tokens else f", {self.features or 'features'}"
        return ValueError(
            f"`chunk` must have shape ({self.batch_size}, steps{features}), or be a list of "
            f"{self.batch_size} rows. Received: {received}"
        )
