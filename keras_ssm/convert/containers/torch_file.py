"""Files of `torch.save`, in the zip and in the older layout, read without PyTorch.

The layout is that of `torch.serialization`: a pickle whose tensors refer to storages, raw numbers
beside it. Nothing that the pickle names is imported or run.
"""

import collections
import math
import zipfile
from pathlib import PurePosixPath

import numpy as np

from keras_ssm.convert.containers.inert_unpickler import Inert, InertUnpickler, check_pickle
from keras_ssm.convert.containers.stored_tensor import StoredTensor

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")

# The storages of PyTorch, by name; bfloat16 is widened when it is read.
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}


class _Storage:
    """Numbers of a file that a tensor refers to; read when a tensor is made of them."""

    def __init__(self, kind, key, count):
        self.kind, self.key, self.count, self.numbers = kind, key, count, None


class _Tensor:
    def __init__(self, storage, offset, size, stride):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


def _rebuild_tensor(storage, offset, size, stride, *_):
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor, *_):
    return tensor


def _size(*arguments):
    return tuple(arguments[0]) if arguments else ()


BUILDERS = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch", "Size"): _size,
}


def read_zip(path, stored=False):
    """Reads a file of `torch.save` in its zip layout.

    Args:
        path: `Path`. The file.
        stored: bool. Whether tensors stay in the file, as `StoredTensor`s, where they lie there
            in one piece. Defaults to `False`.

    Returns:
        What was saved: dicts, lists, numbers, strings, and NumPy arrays for tensors.

    Raises:
        ValueError: for a damaged, incomplete or dishonest file.
    """
    limit = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = {}
        for info in archive.infolist():
            name = PurePosixPath(info.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in info.filename:
                raise ValueError(f"an entry outside the file, {info.filename!r}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
                raise ValueError(
                    f"the entry {info.filename!r} of {info.file_size} bytes in {limit} bytes"
                )
            entries[info.filename] = info
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"a zip file with {len(pickles)} entries 'data.pkl'")
        root = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        big = order is not None and archive.read(order) == b"big"

        def entry_of(storage, dtype):
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None:
                raise ValueError(f"no storage {storage.key!r}")
            if entry.file_size < storage.count * dtype.itemsize:
                raise ValueError(f"a tensor of {storage.count} numbers in {entry.file_size} bytes")
            return entry

        def numbers(storage, dtype):
            entry = entry_of(storage, dtype)
            dtype = dtype.newbyteorder(">") if big else dtype
            return np.frombuffer(archive.read(entry), dtype, storage.count)

        def place(storage, dtype):
            entry = entry_of(storage, dtype)
            with open(path, "rb") as file:
                file.seek(entry.header_offset + 26)
                lengths = file.read(4)
            skipped = 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
            return path, entry.header_offset + skipped, entry

        data = archive.read(pickles[0])
        check_pickle(data)
        # Numbers in another byte order are not read piece by piece.
        return _Converter(numbers, limit, place if stored and not big else None).plain(
            _load(data, {})
        )


def read_legacy(path):
    """Reads a file of `torch.save` in the layout before version 1.6; see `read_zip`."""
    data = path.read_bytes()
    start = 0
    for _ in range(3):  # magic number, protocol, machine
        start = check_pickle(data, start)
    end = check_pickle(data, start)
    after = check_pickle(data, end)
    keys = InertUnpickler(data[end:after], {}).load()
    if not isinstance(keys, list):
        raise ValueError("no list of storages")
    offsets, position = {}, after
    storages = {}
    # The pickle holds the sizes of the storages: it is read first, then the numbers.
    content = _load(data[start:end], storages)
    for key in keys:
        if key not in storages:
            raise ValueError(f"a storage {key!r} that no tensor refers to")
        count = int.from_bytes(data[position : position + 8], "little")
        itemsize = _dtype(storages[key].kind).itemsize
        if count != storages[key].count or position + 8 + count * itemsize > len(data):
            raise ValueError(f"a tensor of {count} numbers in {len(data)} bytes")
        offsets[key] = position + 8
        position += 8 + count * itemsize

    def numbers(storage, dtype):
        if storage.key not in offsets:
            raise ValueError(f"no storage {storage.key!r}")
        return np.frombuffer(data, dtype, storage.count, offsets[storage.key])

    return _Converter(numbers, len(data)).plain(content)


def _load(data, storages):
    def persistent(identifier):
        if not (
            isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage"
        ):
            raise ValueError("a reference to an object outside the file")
        _, kind, key, _, count = identifier[:5]
        module, name = getattr(kind, "foreign", ("", ""))
        if module.split(".")[0] != "torch" or name not in STORAGES:
            raise ValueError(f"a storage of kind {name or kind!r}")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ValueError(f"a storage {key!r} of {count!r} numbers")
        return storages.setdefault(key, _Storage(name, key, count))

    return InertUnpickler(data, BUILDERS, persistent).load()


def _dtype(kind):
    return np.dtype("u2" if STORAGES[kind] == "bfloat16" else STORAGES[kind])


class _Converter:
    """Turns what a pickle held into plain data, each object once."""

    def __init__(self, numbers, limit, place=None):
        # Views may repeat numbers, up to a limit.
        self.numbers, self.budget, self.done = numbers, 16 * limit + 2**26, {}
        self.place = place

    def plain(self, value, depth=0):
        if depth > 200:
            raise ValueError("containers nested 200 deep")
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return value
        if id(value) in self.done:
            return self.done[id(value)][1]
        if isinstance(value, _Tensor):
            result = self.array(value)
        elif isinstance(value, (dict, collections.OrderedDict)):
            result = {}
            self.done[id(value)] = value, result
            for key, item in value.items():
                result[self._key(key)] = self.plain(item, depth + 1)
        elif isinstance(value, (list, tuple, set, frozenset)):
            result = []
            self.done[id(value)] = value, result
            result.extend(self.plain(item, depth + 1) for item in value)
        elif isinstance(value, Inert):
            self.done[id(value)] = value, None  # for parents that contain themselves
            result = self.plain(value.plain(), depth + 1)
        else:
            result = None
        self.done[id(value)] = value, result
        return result

    def _key(self, key):
        return key if isinstance(key, (str, int, float, bool, type(None))) else str(type(key))

    def array(self, tensor):
        storage, size, stride = tensor.storage, tensor.size, tensor.stride
        numbers = (*size, *stride, tensor.offset)
        if (
            not isinstance(storage, _Storage)
            or len(size) != len(stride)
            or not all(isinstance(n, int) and n >= 0 for n in numbers)
        ):
            raise ValueError(f"a tensor of size {size} and stride {stride}")
        dtype = _dtype(storage.kind)
        self.budget -= math.prod(size) * dtype.itemsize
        last = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if self.budget < 0 or (math.prod(size) and last >= storage.count):
            raise ValueError(f"a tensor of size {size} in a storage of {storage.count} numbers")
        if self.place is not None and _in_one_piece(size, stride):
            return self.stored(tensor, dtype)
        if storage.numbers is None:
            storage.numbers = self.numbers(storage, dtype)
        strides = [s * dtype.itemsize for s in stride]
        view = np.lib.stride_tricks.as_strided(
            storage.numbers[tensor.offset :], size, strides, writeable=False
        )
        array = np.ascontiguousarray(view, dtype.newbyteorder("=")).reshape(size)
        if STORAGES[storage.kind] == "bfloat16":
            array = (array.astype("u4") << 16).view("f4")
        return array

    def stored(self, tensor, dtype):
        """The tensor in its place, with the checksum of the storage where it is all of it."""
        path, offset, entry = self.place(tensor.storage, dtype)
        kind = STORAGES[tensor.storage.kind]
        whole = math.prod(tensor.size) * dtype.itemsize == entry.file_size
        begin = offset + tensor.offset * dtype.itemsize
        return StoredTensor(path, begin, tensor.size, kind, entry.CRC if whole else None)


def _in_one_piece(size, stride):
    """Whether the numbers of a tensor lie one after the other."""
    expected = 1
    for n, step in zip(reversed(size), reversed(stride), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True
