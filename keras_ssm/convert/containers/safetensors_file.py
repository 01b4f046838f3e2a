"""Files of safetensors, read and written one tensor at a time.

The library of that name maps a whole file into memory and knows no bfloat16 of NumPy; the format
is a length, a header of JSON and the numbers one after the other.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_ssm.convert.containers.stored_tensor import StoredTensor

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}
KINDS |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}

LARGEST_HEADER = 10**8
LFS_POINTER = b"version https://git-lfs"


def read_stored(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by their names, unread.

    Args:
        path: `Path`.

    Raises:
        ValueError: for a file of another kind, one that was cut short or grew, or a header that
            contradicts itself.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if (head + file.read(16)).startswith(LFS_POINTER):
            raise _bad(path, "a pointer of Git LFS in place of the file: run `git lfs pull`")
        if len(head) < 8 or length > min(LARGEST_HEADER, size):
            raise _bad(path, f"{size} bytes that start with {head!r}")
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        raise _bad(path, f"{size} bytes with a header of {length}")
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"a header that is no JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _bad(path, "a header without names")
    entries.pop("__metadata__", None)
    start, stored, places = 8 + length, {}, []
    for name, entry in entries.items():
        shape, kind, begin, end = _entry(path, name, entry)
        places.append((begin, end, name))
        stored[name] = StoredTensor(path, start + begin, shape, kind)
    expected = 0
    for begin, end, name in sorted(places):
        if begin != expected:
            raise _bad(path, f"tensor {name!r} at byte {begin} in place of {expected}")
        expected = end
    if start + expected != size:
        raise _bad(path, f"{size} bytes in place of {start + expected}")
    return stored


def write_stored(path: Path, tensors: dict[str, tuple[tuple, str, Callable]]) -> None:
    """Writes a file, one tensor at a time.

    Args:
        path: `Path`.
        tensors: dict of names to `(shape, kind, function)`: the shape, one of the `KINDS` by its
            name in the file, and what returns the array.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, kind, _) in tensors.items():
        begin, end = end, end + math.prod(shape) * _itemsize(KINDS[kind])
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, kind, function in tensors.values():
            file.write(_stored(function(), KINDS[kind]).data)


def _stored(array, kind):
    if kind == "bfloat16":  # the numbers have no more digits
        array = (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2")
    return np.ascontiguousarray(array, "<u2" if kind == "bfloat16" else kind)


def _itemsize(kind):
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _entry(path, name, entry):
    entry = entry if isinstance(entry, dict) else {}
    shape, place = entry.get("shape"), entry.get("data_offsets")
    kind = KINDS.get(entry.get("dtype"))
    if kind is None:
        raise _bad(path, f"tensor {name!r} of dtype {entry.get('dtype')!r}")
    if not _counts(shape) or not _counts(place) or len(place) != 2:
        raise _bad(path, f"tensor {name!r} of shape {shape!r} at {place!r}")
    if place[1] - place[0] != math.prod(shape) * _itemsize(kind):
        raise _bad(path, f"tensor {name!r} of shape {shape} in {place[1] - place[0]} bytes")
    return tuple(shape), kind, *place


def _counts(values):
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _unique(pairs):
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name twice")
    return entries


def _bad(path, received):
    return ValueError(f"`{path}` must be a complete safetensors file. Received: {received}")
