"""Samples that wait for others, where an encoder takes several of them for a step."""

from typing import Self

import numpy as np

SAMPLES, WAITING = "stream/samples", "stream/waiting"


class Pending:
    """The samples of each row that have come and make no step yet, fewer than `stride`.

    Args:
        samples: array `(batch, stride - 1, features)`, zero from each row's count on.
        count: integer array `(batch,)`.
    """

    def __init__(self, samples: np.ndarray, count: np.ndarray):
        self.samples, self.count = samples, count
        self.stride = samples.shape[1] + 1

    @classmethod
    def none(cls, batch: int, stride: int, features: int, dtype: str) -> Self:
        """No samples in any row."""
        return cls(np.zeros((batch, stride - 1, features), dtype), np.zeros(batch, "int64"))

    def joined(self, inputs: dict, lengths: np.ndarray) -> tuple[dict, np.ndarray, Self]:
        """The waiting samples and the inputs, up to whole steps, and the samples that wait then.

        Returns:
            Tuple of the inputs, the steps of each row and the new `Pending`.
        """
        if self.stride == 1 or not lengths.any():
            return inputs, lengths, self
        x = inputs["inputs"]
        rows = [
            np.concatenate([old[:n], new[:length]])
            for old, n, new, length in zip(self.samples, self.count, x, lengths, strict=True)
        ]
        steps = np.array([len(row) for row in rows]) // self.stride
        whole = steps * self.stride
        read = np.zeros((len(rows), int(whole.max()), x.shape[2]), x.dtype)
        unread = np.zeros_like(self.samples)
        for i, (row, n) in enumerate(zip(rows, whole, strict=True)):
            read[i, :n] = row[:n]
            unread[i, : len(row) - n] = row[n:]
        mask = np.arange(read.shape[1]) < whole[:, None]
        count = np.array([len(row) for row in rows]) - whole
        return {"inputs": read, "padding_mask": mask}, steps, Pending(unread, count)

    def without(self, rows: np.ndarray) -> Self:
        """A copy without the samples of some rows, which a boolean array marks."""
        samples = np.where(rows[:, None, None], 0, self.samples).astype(self.samples.dtype)
        return Pending(samples, np.where(rows, 0, self.count))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to keep; none where no sample ever waits."""
        return {} if self.stride == 1 else {SAMPLES: self.samples, WAITING: self.count}

    def of(self, arrays: dict) -> Self:
        """Makes an object like this one from the result of `arrays`."""
        if self.stride == 1:
            return self
        samples = np.array(arrays[SAMPLES], self.samples.dtype)
        return Pending(samples, np.array(arrays[WAITING], self.count.dtype))
