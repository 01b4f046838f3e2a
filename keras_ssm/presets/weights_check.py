"""Checks a weights file of a preset before Keras reads it."""

from pathlib import Path

import numpy as np

# Keras writes weights uncompressed. A dataset that is declared but not stored holds no weights.
_FREE_BYTES = 1 << 24
_LARGEST_EXPANSION = 20
_ROWS_BYTES = 1 << 24


def check_weights(path: Path, quantised: bool = False, values: bool = True) -> int:
    """Checks every array of a weights file, and counts what they hold.

    Args:
        path: `Path`. A file of HDF5.
        quantised: bool. Whether integers may stand beside the floats. Defaults to `False`.
        values: bool. Whether the numbers are read and must be finite. Defaults to `True`.

    Returns:
        int. Numbers in the file.

    Raises:
        ValueError: for a file that is no HDF5 or damaged, arrays that point elsewhere or declare
            more than the file holds, other dtypes, NaN or infinity.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return sum(_check(array, path, quantised, values) for array in _arrays(file, path))
    except ValueError as error:
        if "Received: " in str(error):
            raise
        raise _damaged(path, error) from error
    # h5py raises errors of many kinds: OSError, RuntimeError, KeyError, TypeError and others.
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path, error):
    return ValueError(
        f"Weights file `{path}` must be undamaged HDF5: download or save it again. "
        f"Received: {type(error).__name__}: {error}"
    )


def _arrays(file, path):
    import h5py

    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(
                    f"Weights file `{path}` must hold its arrays itself. "
                    f"Received: a link at '{group.name}/{name}'"
                )
            entry = group[name]
            if isinstance(entry, h5py.Group):
                groups.append(entry)
            elif isinstance(entry, h5py.Dataset):
                yield entry


def _check(array, path, quantised, values):
    owner = f"Weight '{array.name}' in `{path}`"
    if array.external or array.is_virtual:
        raise ValueError(f"{owner} must lie in the file itself. Received: an array elsewhere")
    declared, stored = int(array.size) * array.dtype.itemsize, array.id.get_storage_size()
    if declared > max(_FREE_BYTES, _LARGEST_EXPANSION * stored):
        raise ValueError(
            f"{owner} must be as large as it says. "
            f"Received: shape={array.shape}, {declared:,} bytes, of which {stored:,} are stored"
        )
    rounded = array.attrs.get("dtype") == "bfloat16"  # h5py shows bfloat16 as raw bytes
    if not (rounded or array.dtype.kind == "f" or (quantised and array.dtype.kind in "iu")):
        raise ValueError(f"{owner} must be floating point. Received: dtype={array.dtype}")
    if values and not rounded and array.dtype.kind == "f" and array.size:
        for part in _parts(array):
            if not np.isfinite(part).all():
                bad = part[~np.isfinite(part)].flat[0]
                raise ValueError(f"{owner} must be finite. Received: {bad}")
    return int(array.size)


def _parts(array):
    """The numbers of an array, a few million at a time."""
    if array.ndim == 0:
        yield np.asarray(array[()])
        return
    rows = max(1, _ROWS_BYTES // max(1, array.dtype.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
