"""From the name of a preset to the directory that keras_hub reads, and the class that loads it."""

import contextlib

import keras

from keras_ssm import presets


@contextlib.contextmanager
def opened(preset, revision=None):
    """The directory of a preset, verified and with the names of today, for keras_hub to read.

    Args:
        preset: str or `Path`; see `keras_ssm.presets.resolve`.
        revision: str or `None`. Branch, tag or commit of a preset on the Hub.

    Yields:
        `Path` of a directory.

    Raises:
        ValueError: if the preset is unknown, incomplete, altered, of a newer format, names
            classes that are not known here, or does not fit them.
    """
    directory = presets.resolve(preset, revision)
    document = None
    if (directory / presets.PRESET_FILE).is_file():
        document = presets.read(directory)
    names = presets.files_read_on_load(directory)
    with presets.migrated(directory, document, names) as current:
        presets.check_classes(current, keras.saving.get_custom_objects())
        try:
            yield current
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Preset '{preset}' could not be loaded: its configuration, its weights and the "
                f"arguments must go together. Received: {type(error).__name__}: {error}"
            ) from error


def load_model(preset, revision=None, **kwargs):
    """Loads a preset as the class that saved it.

    Args:
        preset: str or `Path`; see `keras_ssm.presets.resolve`.
        revision: str or `None`. Branch, tag or commit of a preset on the Hub.
        **kwargs: as for `from_preset` of the class.

    Returns:
        A task model, or an `SSMBackbone` where the preset holds no task.

    Raises:
        ValueError: as `from_preset` does, or if the class is not registered with Keras.
    """
    directory = presets.resolve(preset, revision)
    document = presets.migrate_document(presets.read(directory))
    name = document.get("task", document.get("backbone"))
    for registered, cls in keras.saving.get_custom_objects().items():
        if registered.rpartition(">")[2] == name and hasattr(cls, "from_preset"):
            return cls.from_preset(directory, **kwargs)
    raise ValueError(
        f"Preset '{preset}' must hold a model of a registered class. Received: class {name!r}"
    )


class PresetTable:
    """The attribute `presets` of a model class: the table of what it can load, read anew.

    The entries are those of keras_hub: `metadata`, here from `preset.json`, and a handle.
    """

    def __get__(self, instance, owner):
        return {
            name: {"metadata": _metadata(info), "kaggle_handle": info["handle"]}
            for name, info in presets.list_presets().items()
            if self._loads(owner, info)
        }

    @staticmethod
    def _loads(owner, info):
        saved = {info.get("task"), info.get("backbone")}
        return any(cls.__name__ in saved for cls in [owner, *_subclasses(owner)])


def _metadata(info):
    left_out = ("files", "sample", "handle")
    return {
        "description": info.get("description", info.get("name", "")),
        "params": info.get("parameters"),
        **{key: value for key, value in info.items() if key not in left_out},
    }


def _subclasses(cls):
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
