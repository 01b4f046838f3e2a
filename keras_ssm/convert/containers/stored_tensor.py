import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Bytes of a file that are in memory at a time.
PIECE = 2**21


class StoredTensor:
    """A tensor that stays in its file until it is read, row by row.

    Args:
        path: `Path`. The file, with the numbers as they lie in memory.
        offset: int. Where they begin.
        shape: tuple of int.
        kind: str. A dtype of NumPy, or `"bfloat16"`, which is widened when it is read.
        checksum: int or `None`. CRC-32 of all its bytes.
    """

    def __init__(
        self,
        path: Path,
        offset: int,
        shape: tuple[int, ...],
        kind: str,
        checksum: int | None = None,
    ):
        self.path, self.offset, self.shape = path, offset, tuple(shape)
        self.kind, self.checksum = kind, checksum

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype="int64"))

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.size * self._dtype.itemsize

    @property
    def _dtype(self):
        return np.dtype("<u2" if self.kind == "bfloat16" else self.kind)

    def is_same_place(self, other: "StoredTensor") -> bool:
        """Whether both are the same bytes of the same file."""
        places = [(t.path, t.offset, t.shape, t.kind) for t in (self, other)]
        return places[0] == places[1]

    def pieces(self, largest: int = PIECE) -> Iterator[tuple[int, np.ndarray]]:
        """Reads the rows of the first axis, some at a time.

        Args:
            largest: int. Bytes of the file that are read at a time; one row at least.

        Yields:
            Tuple of the number of the first row and an array of rows.

        Raises:
            ValueError: if the file ends before the tensor, or its bytes are damaged.
        """
        shape = self.shape or (1,)
        width = int(np.prod(shape[1:], dtype="int64"))
        step = max(1, largest // max(1, width * self._dtype.itemsize))
        checksum = 0
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start) * width
                numbers = np.fromfile(file, self._dtype, count)
                if numbers.size != count:
                    raise ValueError(f"`{self.path}` must be complete. Received: it ends early")
                if self.checksum is not None:
                    checksum = zlib.crc32(numbers, checksum)
                yield start, _plain(numbers, self.kind).reshape(-1, *shape[1:])
        if self.checksum is not None and checksum != self.checksum:
            raise ValueError(
                f"`{self.path}` must be undamaged: download or copy it again. "
                f"Received: a tensor of shape {self.shape} with another CRC-32"
            )

    def array(self) -> np.ndarray:
        """Reads the whole tensor."""
        parts = [part for _, part in self.pieces(max(1, self.nbytes))]
        if not parts:
            return np.zeros(self.shape, "f4" if self.kind == "bfloat16" else self.kind)
        return parts[0].reshape(self.shape)


class HeldTensor:
    """An array with the methods of a `StoredTensor`, for files that are read as a whole.

    Args:
        array: NumPy array.
    """

    def __init__(self, array: np.ndarray):
        self.held, self.shape, self.kind = array, array.shape, array.dtype.str
        self.size, self.nbytes = array.size, array.nbytes

    def is_same_place(self, other: "HeldTensor") -> bool:
        """Whether both are one array."""
        return self.held is getattr(other, "held", None)

    def pieces(self, largest: int = PIECE) -> Iterator[tuple[int, np.ndarray]]:
        """All rows at once; see `StoredTensor.pieces`."""
        yield 0, self.held if self.shape else self.held.reshape(1)

    def array(self) -> np.ndarray:
        """The array."""
        return self.held


def _plain(numbers, kind):
    if kind == "bfloat16":
        return (numbers.astype("u4") << 16).view("f4")
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
