"""The tensors of a published model, in one file or several, unread."""

import zipfile
from pathlib import Path

from keras_ssm import presets
from keras_ssm.convert.containers import safetensors_file, torch_file
from keras_ssm.convert.containers.checkpoint_file import from_torch
from keras_ssm.convert.containers.stored_tensor import HeldTensor, StoredTensor

ZIP = b"PK\x03\x04"


def open_weights(directory: Path, format: str) -> tuple[dict, str, list]:
    """Finds the tensors of a published model, of which none is read.

    Args:
        directory: `Path`.
        format: str. One of `presets.PUBLISHED_FORMATS`.

    Returns:
        Tuple of a dict of names to `StoredTensor`s, the kind of file, and a list of what else
        the files hold.

    Raises:
        ValueError: for files that are missing, damaged, of another kind than their names say, or
            that do not hold what their index says.
    """
    names = presets.weight_names(directory, format)
    index = presets.weight_index(directory, format)
    all_tensors, homes, others = {}, {}, []
    for name in names:
        tensors, more = open_file(directory / name)
        others += more
        for tensor in tensors:
            if tensor in homes:
                raise ValueError(
                    f"A tensor of '{directory}' must be in one of its files. "
                    f"Received: '{tensor}' in {homes[tensor]} and {name}"
                )
            homes[tensor] = name
        all_tensors |= tensors
    if index is not None and index != homes:
        wrong = min(set(index.items()) ^ set(homes.items()))[0]
        raise ValueError(
            f"The files of '{directory}' must hold what their index says: are some of another "
            f"model? Received: tensor '{wrong}' in {homes.get(wrong, 'no file')}, in place of "
            f"{index.get(wrong, 'none')}"
        )
    return all_tensors, "safetensors" if names[0].endswith(".safetensors") else "PyTorch", others


def open_file(path: Path) -> tuple[dict, list]:
    """The tensors of one file by their names, and what else it holds.

    Args:
        path: `Path`. By its name a file of safetensors or, with another ending, of PyTorch.
    """
    if path.suffix == ".safetensors":
        return safetensors_file.read_stored(path), []
    with open(path, "rb") as file:
        head = file.read(len(safetensors_file.LFS_POINTER))
    try:
        if head.startswith(ZIP):
            tensors, _, others = from_torch(torch_file.read_zip(path, stored=True))
        elif head.startswith(torch_file.LEGACY_MAGIC):
            tensors, _, others = from_torch(torch_file.read_legacy(path))
        elif head == safetensors_file.LFS_POINTER:
            raise ValueError("a pointer of Git LFS in place of the file: run `git lfs pull`")
        else:
            raise ValueError(f"a file that starts with {head[:8]!r}")
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"`{path}` must be a complete and plain file of PyTorch. "
            f"Received: {error or type(error).__name__}"
        ) from error
    return {
        name: tensor if isinstance(tensor, StoredTensor) else HeldTensor(tensor)
        for name, tensor in tensors.items()
    }, others
