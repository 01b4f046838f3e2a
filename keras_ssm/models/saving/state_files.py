"""States in files of NumPy, which carry over between processes and backends."""

import zipfile
import zlib

import numpy as np

from keras_ssm.atomic_file import writing_file

# Errors of NumPy for files that it did not write.
UNREADABLE = (
    *(ValueError, TypeError, AttributeError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def save(arrays, filepath):
    """Writes a dict of arrays to a file `.npz`, whole or not at all."""
    with writing_file(filepath) as scratch, scratch.open("wb") as file:
        np.savez(file, **arrays)


def load(filepath, writer):
    """Reads what `save` wrote.

    Args:
        filepath: str or `Path`.
        writer: str. The method that writes such files, for the error.

    Raises:
        ValueError: for a file of something else, or a damaged one.
    """
    try:
        with np.load(filepath, allow_pickle=False) as file:
            return dict(file)
    except UNREADABLE as error:
        raise ValueError(
            f"`filepath` must be a file that `{writer}` wrote. "
            f"Received: filepath={str(filepath)!r}, of which NumPy says: {error}"
        ) from error


def storable(part):
    """An array as one that such a file can hold: bfloat16 becomes float32."""
    part = np.asarray(part)
    return part if part.dtype.kind in "iufb" and part.dtype.isbuiltin else part.astype("float32")
