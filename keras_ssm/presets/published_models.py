"""Directories of published language models in the formats of other libraries.

Which of them a directory is, and which of its files loading reads. The formats themselves are read
by `keras_ssm.convert`.
"""

import contextlib
from collections.abc import Collection
from pathlib import Path

from keras_ssm.presets.preset_files import PRESET_FILE, read_json

HF, ORIGINAL, CODESTRAL = "mamba-hf", "mamba-original", "mamba-codestral"
HYENA_HF, HYENA_ORIGINAL = "hyena-hf", "hyena-original"
PUBLISHED_FORMATS = (HF, ORIGINAL, CODESTRAL, HYENA_HF, HYENA_ORIGINAL)

CONFIG, PARAMS = "config.json", "params.json"
MODEL_TYPES = {"mamba": HF, "mamba2": HF, "falcon_mamba": HF, "hyenadna": HYENA_HF}

# Small files that describe a repository, and the tokenizer of its model.
DESCRIBING = (
    *(CONFIG, PARAMS, "generation_config.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
)

# Where the weights lie, the best place first; an index names further files.
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_INDEX = ".index.json"
_CODESTRAL_WEIGHTS = "consolidated.safetensors"
_HYENA_WEIGHTS = "weights.ckpt"


def published_format(directory: Path) -> str | None:
    """The format of a directory, by its configuration; `None` for other directories.

    Args:
        directory: `Path`.

    Raises:
        ValueError: for a configuration that is no JSON, or of a model without counterpart here.
    """
    directory = Path(directory)
    if (directory / PRESET_FILE).is_file():
        return None
    if (directory / CONFIG).is_file():
        config = read_json(directory / CONFIG)
        if "registered_name" in config:
            return None
        if "model_type" in config:
            _check_model_type(directory, config["model_type"])
            return MODEL_TYPES[config["model_type"]]
        if {"d_model", "n_layer"} & set(config):
            return HYENA_ORIGINAL if isinstance(config.get("layer"), dict) else ORIGINAL
    elif (directory / PARAMS).is_file():
        params = read_json(directory / PARAMS)
        if {"dim", "n_layers"} <= set(params):
            return CODESTRAL
    return None


def weight_names(directory: Path, format: str, files: Collection[str] | None = None) -> list[str]:
    """The files that hold the weights of a published model.

    Args:
        directory: `Path`. Holds its configuration and, if there is one, its index.
        format: str. One of `PUBLISHED_FORMATS`.
        there: collection of str or `None`. Names of all files of the model. Defaults to those
            in the directory.

    Returns:
        List of str, the index of several files not among them.

    Raises:
        ValueError: if the model has no weights, or its index is damaged or names files that are
            not there.
    """
    files = _files(directory) if files is None else files
    main_file = _place(directory, format, files)
    if not main_file.endswith(_INDEX):
        return [main_file]
    names = sorted(set(_read_index(directory / main_file).values()))
    if missing := [name for name in names if name not in files]:
        raise ValueError(
            f"'{directory}' is incomplete: `{main_file}` names {len(names)} files of weights. "
            f"Received: no file {missing[0]!r}"
        )
    return names


def weight_index(directory: Path, format: str) -> dict | None:
    """Dict of tensors to the files that hold them; `None` where one file holds all."""
    main_file = _place(directory, format, _files(directory))
    return _read_index(directory / main_file) if main_file.endswith(_INDEX) else None


def _files(directory):
    return {path.name for path in Path(directory).iterdir() if path.is_file()}


def _place(directory, format, files):
    """The file with the weights, or the index of the files that hold them."""
    single = {CODESTRAL: _CODESTRAL_WEIGHTS, HYENA_ORIGINAL: _HYENA_WEIGHTS}
    candidates = (single[format],) if format in single else _WEIGHTS
    for name in candidates:
        if name in files:
            return name
    raise ValueError(
        f"'{directory}' holds the configuration of a model in the format {format!r} and must "
        f"hold its weights as well: {', '.join(candidates)}. Received: files {sorted(files)[:12]}"
    )


def _read_index(path):
    """The `weight_map` of an index."""
    weight_map = read_json(path).get("weight_map")
    is_map = isinstance(weight_map, dict) and all(
        isinstance(name, str) and name == Path(name).name and name not in ("", "..")
        for name in weight_map.values()
    )
    if not is_map or not weight_map:
        raise ValueError(
            f"`{path}` must hold a `weight_map` of tensors to files beside it. "
            f"Received: weight_map={str(weight_map)[:80]}"
        )
    return weight_map


def is_weight_file(name: str) -> bool:
    """Whether readers of these formats might take weights from a file of this name."""
    endings = (".safetensors", ".bin", ".ckpt", _INDEX)
    return name.endswith(endings) and "/" not in name


def directory_of(path: Path) -> Path:
    """The directory of a published model that is named by one of its own files."""
    with contextlib.suppress(OSError):
        describes = path.name in (*DESCRIBING, *_WEIGHTS, _CODESTRAL_WEIGHTS, _HYENA_WEIGHTS)
        if describes and path.is_file() and published_format(path.parent) is not None:
            return path.parent
    return path


def _check_model_type(directory, model_type):
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise ValueError(
            f"'{directory}' is no preset of Keras classes, and `model_type` of a published model "
            f"must be one of {', '.join(MODEL_TYPES)}: models with attention, experts or other "
            "mixers have no counterpart here. "
            f"Received: model_type={model_type!r}"
        )
