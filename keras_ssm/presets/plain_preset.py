"""Presets of keras_hub without a `preset.json`: complete, as far as their configuration says."""

import warnings
from pathlib import Path

from keras_ssm.presets.preset_files import read_json


def verify_plain(directory):
    """Checks that every file which the configuration of a preset needs is there and opens.

    Args:
        directory: `Path`. A preset without `preset.json`.

    Raises:
        ValueError: if it is no preset of Keras classes, or a file is missing or cut short.
    """
    directory = Path(directory)
    config = read_json(directory / "config.json")
    if not isinstance(config.get("registered_name"), str):
        raise ValueError(
            f"'{directory}' is no preset of Keras classes: its config.json names no "
            "`registered_name`, and no published model either: no `model_type`, as transformers "
            f"writes. Received: keys {sorted(config)}"
        )
    needed = set(_weights(directory))
    if (directory / "task.json").is_file():
        needed.add("task.weights.h5")
        task = read_json(directory / "task.json").get("config")
        if isinstance(task, dict) and task.get("preprocessor"):
            needed.add("preprocessor.json")
    elif (directory / "task.weights.h5").is_file():
        needed.add("task.json")
    missing = sorted(name for name in needed if not (directory / name).is_file())
    if missing:
        raise ValueError(
            f"Preset '{directory}' is incomplete: its configuration needs {sorted(needed)}. "
            f"Received: no file {missing[0]!r}"
        )
    for name in sorted(needed):
        if name.endswith(".h5"):
            _check_opens(directory / name)
    warnings.warn(
        f"Preset '{directory}' has no preset.json: its files are all there, but nothing vouches "
        "for their content.",
        stacklevel=2,
    )


def _weights(directory):
    if not (directory / "model.weights.json").is_file():
        return ["model.weights.h5"]
    shards = read_json(directory / "model.weights.json").get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(
            f"`{directory / 'model.weights.json'}` must hold a `weight_map`. "
            f"Received: weight_map={shards!r}"
        )
    return {
        name for value in shards.values() for name in ([value] if isinstance(value, str) else value)
    }


def _check_opens(path):
    import h5py

    try:
        with h5py.File(path):
            pass
    except OSError as error:
        raise ValueError(
            f"Weights file `{path}` must be complete HDF5. "
            f"Received: {path.stat().st_size} bytes ({error})"
        ) from None
