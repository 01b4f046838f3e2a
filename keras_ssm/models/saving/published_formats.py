"""The place where `keras_ssm.convert`, which stands above the models, says how it reads others'."""

from collections.abc import Callable

import keras

from keras_ssm.presets import FoundPreset

_readers = []


def register(read: Callable) -> None:
    """Names the function that reads published models of other formats.

    Args:
        read: callable `(cls, found, load_weights, **overrides)` that returns a model.
    """
    _readers[:] = [read]


def read(cls: type, preset: FoundPreset, load_weights: bool, **overrides: object) -> keras.Model:
    """Loads a model from a directory whose format is not ours.

    Args:
        cls: the class of the model.
        preset: `FoundPreset` with a `format`.
        load_weights: bool.
        **overrides: Arguments that override the configuration.
    """
    if not _readers:
        raise ValueError(
            f"'{preset}' is in the format {preset.format!r}, which `keras_ssm.convert` reads: "
            "import it first. Received: `keras_ssm.models` alone"
        )
    return _readers[0](cls, preset, load_weights, **overrides)
