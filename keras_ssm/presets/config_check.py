"""Compares the configurations of a preset with each other and with its weights."""

import json
from collections.abc import Collection

from keras_ssm.presets.documents import Documents

_WEIGHTS = ".weights.h5"


def is_quantised(documents: Documents) -> bool:
    """Whether the configuration of a preset names dtype policies of quantised layers."""
    text = json.dumps(documents["config.json"])
    return any(f'"{kind}' in text for kind in ("DTypePolicyMap", "Quantized", "int8", "int4"))


def check_agreement(documents: Documents) -> None:
    """Checks that the files of a preset describe one and the same model.

    The task's file holds the configurations of its backbone and its preprocessor once more, and
    Keras reads one or the other.

    Raises:
        ValueError: if they differ.
    """
    if "task.json" not in documents:
        return
    task = _config(documents["task.json"])
    for key, name in (("backbone", "config.json"), ("preprocessor", "preprocessor.json")):
        inside, beside = (_described(value) for value in (task.get(key), documents.get(name)))
        if inside != beside:
            differing = sorted(k for k in {*inside, *beside} if inside.get(k) != beside.get(k))
            raise ValueError(
                f"`task.json` and `{name}` of preset '{documents.directory}' must "
                f"describe the same {key}. "
                f"Received: another {', '.join(map(repr, differing))}"
            )


def _described(entry):
    """Class and arguments of a configuration, without names, policies and flags."""
    entry = entry if isinstance(entry, dict) else {}
    left_out = ("name", "trainable", "dtype")
    arguments = {k: v for k, v in _config(entry).items() if k not in left_out}
    return {"class_name": entry.get("registered_name", entry.get("class_name")), **arguments}


def check_sizes(documents: Documents, numbers: int, overridden: Collection[str] = ()) -> None:
    """Checks that a model of these sizes can have its weights in the files of a preset.

    A size that the weights contradict is refused before the model takes memory.

    Args:
        documents: `Documents` of a preset.
        numbers: int. Numbers that its weights files hold.
        overridden: collection of str. Arguments that the caller sets instead.

    Raises:
        ValueError: if the smallest weights of such a model are more than there are.
    """
    task = _config(documents.get("task.json"))
    backbone = task.get("backbone") or documents["config.json"]
    backbone = _config(backbone)
    mixer = _config(backbone.get("mixer"))
    sizes = {
        name: max(1, value)
        for config in (mixer, backbone, task)
        for name, value in config.items()
        if isinstance(value, int) and name not in overridden
    }
    width, layers = sizes.get("hidden_dim", 1), sizes.get("num_layers", 1)
    head = sizes.get("head_dim", width)
    smallest = {
        "num_layers": layers,
        "hidden_dim": layers * width,
        # Each of the conjugate pairs has two numbers in C.
        "state_dim": layers * width * sizes.get("state_dim", 1) // 2,
        "vocabulary_size": width * sizes.get("vocabulary_size", 1),
        "num_classes": head * sizes.get("num_classes", 1),
        "num_outputs": head * sizes.get("num_outputs", 1),
        "head_dim": head,
    }
    if backbone.get("encoder", "auto") is not None:
        smallest["input_dim"] = width * sizes.get("input_dim", 1)
    if backbone.get("gate", "glu") is not None:
        smallest["hidden_dim"] = layers * width * width * sizes.get("channels", 1)
    for name, count in smallest.items():
        if name in sizes and count > numbers:
            raise ValueError(
                f"`{name}` in the configuration of preset '{documents.directory}' must "
                "fit its weights, "
                f"which are {numbers:,} numbers. Received: {name}={sizes[name]}"
            )


def _config(entry):
    config = entry.get("config") if isinstance(entry, dict) else None
    return config if isinstance(config, dict) else {}
