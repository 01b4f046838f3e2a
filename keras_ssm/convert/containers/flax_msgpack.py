"""Trees of arrays as `flax.serialization` packs them: msgpack with extension types for arrays."""

import math

import numpy as np

ARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
NUMBERS = {
    *("float16", "float32", "float64", "complex64", "complex128", "bool", "bfloat16"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


def read(data):
    """Returns the nested dict of a msgpack file, with NumPy arrays for arrays.

    Args:
        data: bytes.

    Raises:
        ValueError: for damaged data, or an array that declares another size than it has.
    """
    msgpack = _msgpack()
    tree = msgpack.unpackb(data, ext_hook=_extension, raw=False, strict_map_key=False)
    if not isinstance(tree, dict):
        raise ValueError(f"{type(tree).__name__} in place of a tree")
    return _joined(tree)


def write(tree):
    """Returns a nested dict of arrays as bytes that `flax.serialization.from_bytes` reads."""
    msgpack = _msgpack()

    def pack(array):
        array = np.ascontiguousarray(array)
        content = (array.shape, array.dtype.name, array.tobytes())
        return msgpack.ExtType(ARRAY, msgpack.packb(content, use_bin_type=True))

    return msgpack.packb(tree, default=pack, strict_types=True)


def _msgpack():
    try:
        import msgpack
    except ImportError:
        raise ImportError(
            "Files of flax need msgpack: pip install 'keras-ssm[convert]'. Received: no msgpack"
        ) from None
    return msgpack


def _extension(code, data):
    if code == COMPLEX:
        return complex(*_msgpack().unpackb(data))
    if code not in (ARRAY, SCALAR):
        raise ValueError(f"an extension of type {code}")
    shape, name, content = _msgpack().unpackb(data, raw=False, use_list=False)
    if name not in NUMBERS:
        raise ValueError(f"an array of {name!r}")
    dtype = np.dtype("u2" if name == "bfloat16" else name)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    array = np.frombuffer(content, dtype).reshape(shape)
    return (array.astype("u4") << 16).view("f4") if name == "bfloat16" else array


def _joined(tree):
    """The tree with arrays that were cut into chunks put together."""
    if not isinstance(tree, dict):
        return tree
    if CHUNKED not in tree:
        return {key: _joined(value) for key, value in tree.items()}
    parts = [tree["chunks"][key] for key in sorted(tree["chunks"], key=int)]
    shape = [tree["shape"][key] for key in sorted(tree["shape"], key=int)]
    return np.concatenate(parts).reshape(shape)
