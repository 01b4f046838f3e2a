import contextlib
import json
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_ssm.convert.containers import flax_msgpack, torch_file
from keras_ssm.convert.containers.stored_tensor import StoredTensor

# Entries of PyTorch files that hold the state dict, unless the file is one itself.
STATE_DICTS = ("state_dict", "model_state_dict", "model", "net")

TENSORS = (np.ndarray, StoredTensor)

# Trained numbers hardly compress; a small file that unpacks to more than this is no checkpoint.
LARGEST_RATIO = 100


class CheckpointFile(NamedTuple):
    """What a file holds, whatever its container.

    Fields:
        tensors: dict of names to NumPy arrays; names of nested trees are joined by `/`.
        hyper_parameters: dict. The configuration of the training run, as far as it is there.
        others: list of str. Other things in the file, which a model does not need.
        container: str. What kind of file it is.
    """

    tensors: dict
    hyper_parameters: dict
    others: list
    container: str


def read_checkpoint_file(path):
    """Reads a checkpoint as data; its kind is recognised by its content.

    Args:
        path: str or `Path`. A file of PyTorch (zip or older), flax msgpack, npz, safetensors. A
            configuration beside it, `NAME.json`, is read as well.

    Returns:
        A `CheckpointFile`.

    Raises:
        ValueError: for a missing, damaged, incomplete or unsafe file, or of another kind.
        ImportError: if a library for its kind is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"`path` must be a checkpoint file. Received: path={str(path)!r}")
    container, read = _recognise(path)
    try:
        tensors, hyper_parameters, others = read(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"'{path}' must be a complete and plain {container} file; nothing was written. "
            f"Received: {error or type(error).__name__}"
        ) from error
    beside = path.with_name(path.name + ".json")
    if beside.is_file():
        hyper_parameters = {**hyper_parameters, **read_configuration(beside)}
    return CheckpointFile(tensors, hyper_parameters, others, container)


def read_configuration(path):
    """Returns the dict of a JSON or YAML file, or raises a `ValueError`."""
    import yaml

    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        configuration = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"'{path}' must be a JSON or YAML file. Received: {error}") from None
    if not isinstance(configuration, dict):
        raise ValueError(
            f"'{path}' must hold names and values. Received: {type(configuration).__name__}"
        )
    return configuration


def _recognise(path):
    """The kind of a file and its reader, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ValueError(
                f"'{path}' must be a complete zip file (of PyTorch or NumPy). Received: {error}"
            ) from None
        if names and all(name.endswith(".npy") for name in names):
            return "npz", _read_npz
        if any(name.rpartition("/")[2] == "data.pkl" for name in names):
            return "PyTorch", lambda path: from_torch(torch_file.read_zip(path))
    elif head.startswith(torch_file.LEGACY_MAGIC):
        return "PyTorch", lambda path: from_torch(torch_file.read_legacy(path))
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors", _read_safetensors
    elif head[:1] == b"\x80" and head[1:2] in b"\x00\x01\x02\x03\x04\x05":
        pass  # a bare pickle
    elif _is_map_of_names(head):
        return "flax msgpack", _read_msgpack
    raise ValueError(
        f"'{path}' must be a file of PyTorch, flax msgpack, npz or safetensors. "
        f"Received: a file that starts with {head[:8]!r}"
    )


def _is_map_of_names(head):
    """Whether these bytes begin a map of msgpack, and its first key is a string."""
    if not head:
        return False
    first = {0xDE: 3, 0xDF: 5}.get(head[0], 1)
    is_map = 0x80 <= head[0] <= 0x8F or first > 1
    return is_map and len(head) > first and (0xA0 <= head[first] <= 0xBF or head[first] == 0xD9)


def from_torch(content):
    """The tensors, hyper-parameters and other things in what a file of PyTorch held."""
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} in place of named tensors")
    tensors, others = content, []
    for key in STATE_DICTS:
        if isinstance(content.get(key), dict) and _arrays(content[key]):
            tensors, others = content[key], [k for k in content if k != key]
            break
    hyper_parameters = content.get("hyper_parameters")
    if not isinstance(hyper_parameters, dict):
        hyper_parameters = {}
    arrays = _arrays(tensors)
    others += [name for name in tensors if name not in arrays]
    if not arrays:
        raise ValueError(f"no tensors; it holds {sorted(map(str, content))[:8]}")
    others = [str(name) for name in others if name != "hyper_parameters"]
    return arrays, hyper_parameters, others


def _arrays(mapping):
    return {k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, TENSORS)}


def _read_msgpack(path):
    return _from_tree(flax_msgpack.read(path.read_bytes()))


def _read_npz(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > LARGEST_RATIO * info.compress_size + 2**20:
                raise ValueError(f"{info.filename!r} of {info.file_size} bytes")
            with archive.open(info) as file:
                _check_npy(info, file)
    with np.load(path, allow_pickle=False) as arrays:
        return _from_tree({name: arrays[name] for name in arrays.files})


def _check_npy(info, file):
    """Compares what the header of an array declares with the size of its entry."""
    version = np.lib.format.read_magic(file)
    reader = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
    shape, _, dtype = getattr(np.lib.format, reader)(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{info.filename!r} of shape {shape} in {info.file_size} bytes")


def _read_safetensors(path):
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = path.with_name("config.json")
    hyper_parameters = read_configuration(config) if config.is_file() else {}
    with contextlib.suppress(json.JSONDecodeError):
        stored = json.loads(metadata.get("config", "{}"))
        hyper_parameters = {**hyper_parameters, **(stored if isinstance(stored, dict) else {})}
    if any(".layers_0.seq." in name for name in tensors):  # flax, with another separator
        tensors = {name.replace(".", "/"): value for name, value in tensors.items()}
    tensors, _, others = _from_tree(tensors)
    return tensors, hyper_parameters, others


def _from_tree(tree):
    """Names of a nested tree joined by `/`, without what trained it."""
    flat, others = {}, []

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, entry in value.items():
                walk(f"{prefix}/{key}" if prefix else str(key), entry)
        elif isinstance(value, (np.ndarray, np.generic)):
            flat[prefix] = np.asarray(value)
        else:
            others.append(prefix)

    walk("", tree)
    parts = {name: name.split("/") for name in flat}
    state = [n for n, path in parts.items() if path[0] == "step" or "opt_state" in path]
    for name in state:
        del flat[name]
    others += sorted({parts[name][0] for name in state})
    flat = {name.removeprefix("variables/"): value for name, value in flat.items()}
    if flat and not any(name.startswith("params/") for name in flat) and "encoder" in tree:
        flat = {f"params/{name}": value for name, value in flat.items()}
    return flat, {}, others
