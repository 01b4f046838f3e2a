"""From the name of a preset to the directory that keras_hub reads, and the class that loads it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras

from keras_ssm import presets
from keras_ssm.models.saving import published_formats, sample_check
from keras_ssm.types import PathLike


class _ReplacedMeanwhileError(ValueError):
    """A preset was replaced by another while it was read."""


class OpenPreset(NamedTuple):
    """A preset for keras_hub to read.

    Fields:
        directory: `Path` of its files, with the names of today.
        document: dict. Its `preset.json`, or `None`.
        documents: `presets.Documents`. Its other JSON files.
    """

    directory: Path
    document: dict | None
    documents: presets.Documents


@contextlib.contextmanager
def opened(preset, revision=None, weights=False, overridden=(), found=None):
    """A preset, verified and with the names of today, for keras_hub to read.

    Args:
        preset: str or `Path`; see `keras_ssm.presets.resolve`.
        revision: str or `None`. Branch, tag or commit of a preset on the Hub.
        weights: bool. Whether the values of the weights are checked. Defaults to `False`: their
            sizes alone.
        overridden: collection of str. Arguments of the caller that override the configuration.
        found: `presets.FoundPreset` or `None`. The preset, where it was found already.

    Yields:
        `OpenPreset`.

    Raises:
        ValueError: if the preset is unknown, incomplete, altered, of a newer format, names
            classes that are not known here, contradicts itself, holds weights that are no
            finite floats, or does not fit them.
    """
    directory, document, before, format = found or presets.find(preset, revision)
    if format is not None:
        raise ValueError(
            f"'{preset}' is a published model in the format {format!r}: load it as an "
            "`SSMCausalLM` or an `SSMBackbone`. Received: a directory without preset.json"
        )
    try:
        names = presets.files_read_on_load(directory)
        with presets.migrated(directory, document, names) as current:
            documents = presets.Documents(current)
            presets.check_classes(documents, keras.saving.get_custom_objects())
            presets.check_agreement(documents)
            quantised = presets.is_quantised(documents)
            numbers = sum(
                presets.check_weights(current / name, quantised, values=weights)
                for name in sorted(names)
                if name.endswith(".weights.h5")
            )
            presets.check_sizes(documents, numbers, overridden)
            yield OpenPreset(current, document, documents)
    # Keras, h5py and the backends raise errors of many kinds for foreign files.
    except Exception as error:
        if presets.vouching(directory) != before:
            raise _ReplacedMeanwhileError(
                f"Preset '{preset}' was replaced while it was read: load it again. "
                f"Received: {type(error).__name__}: {error}"
            ) from error
        if isinstance(error, ValueError) and "Received: " in str(error):
            raise
        raise ValueError(
            f"Preset '{preset}' could not be loaded: its configuration, its weights and the "
            f"arguments must go together. Received: {type(error).__name__}: {error}"
        ) from error
    if presets.vouching(directory) != before:
        raise _ReplacedMeanwhileError(
            f"Preset '{preset}' was replaced while it was read: load it again. "
            "Received: another preset.json"
        )


def load(
    cls,
    build,
    preset,
    revision=None,
    load_weights=True,
    check_sample=True,
    step_scale=None,
    **kw,
):
    """Loads a model of a preset, checks its outputs, and sets its `step_scale`.

    Args:
        cls: the class of the model.
        build: callable. `from_preset` of keras_hub for an `OpenPreset`.
        preset: str or `Path`; see `keras_ssm.presets.resolve`.
        revision: str or `None`. Branch, tag or commit of a preset on the Hub.
        load_weights: bool. Whether the trained weights are loaded.
        check_sample: bool. Whether the outputs are compared with the recorded ones.
        step_scale: float or `None`. In place of the recorded one.
        **kw: Arguments that override the configuration.

    Returns:
        The model.

    Raises:
        ValueError: as `opened` does, or if the outputs are others than the recorded ones.
    """
    found = presets.find(preset, revision, weights=load_weights)
    if found.format is not None:
        model = published_formats.read(cls, found, load_weights, **kw)
    else:
        model = _load(build, preset, found, revision, load_weights, check_sample, kw)
    if step_scale is not None:
        body = getattr(model, "backbone", model)
        if getattr(body, "convolves", False) and step_scale != 1:
            return model.rescaled(step_scale)
        body.step_scale = step_scale
    return model


def _load(build, preset, found, revision, load_weights, check_sample, kw):
    """A model of a preset of ours, also where another replaces it meanwhile."""
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            with opened(preset, revision, load_weights, overridden=kw, found=found) as files:
                model = build(files, load_weights=load_weights, **kw)
                if load_weights:
                    _check_step_scales(model, preset)
                    if check_sample:
                        sample_check.check(model, files.document, files.documents, preset, kw)
            return model
        except _ReplacedMeanwhileError:
            if not attempts_left:
                raise
            if isinstance(preset, presets.FoundPreset):
                preset = preset.directory
            found = None  # the next attempt verifies it anew


def with_saved_policy(arguments, documents):
    """The arguments of `from_preset`, with the saved dtype policy where keras_hub loses it.

    Plain dtypes give way to the policy of now. Of quantised ones, which are a map, keras_hub would
    take the default in a backbone; names such as `"mixed_bfloat16"` it does not know.
    """
    saved = documents["config.json"]["config"].get("dtype")
    if "dtype" in arguments or not any(kind in str(saved) for kind in ("DTypePolicyMap", "mixed_")):
        return arguments
    return {**arguments, "dtype": keras.dtype_policies.get(saved)}


def _check_step_scales(model, preset):
    for weight in model.weights:
        if weight.path.endswith("step_scale") and not keras.ops.convert_to_numpy(weight) > 0:
            raise ValueError(
                f"`{weight.path}` of preset '{preset}' must be positive. "
                f"Received: {float(keras.ops.convert_to_numpy(weight))}"
            )


def load_model(preset: PathLike, revision: str | None = None, **kwargs) -> keras.Model:
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
    found_preset = presets.find(preset, revision)
    if found_preset.format is not None:
        return published_formats.read(keras.Model, found_preset, True, **kwargs)
    # Without a `preset.json` the task is not known.
    document = presets.migrate_document(
        found_preset.document or presets.read(found_preset.directory)
    )
    name = document.get("task", document.get("backbone"))
    for registered, cls in keras.saving.get_custom_objects().items():
        if registered.rpartition(">")[2] == name and hasattr(cls, "from_preset"):
            return cls.from_preset(found_preset, **kwargs)
    raise ValueError(
        f"Preset '{preset}' must hold a model of a registered class. Received: class {name!r}"
    )


def tokenizer_of(directory):
    """Name of the class of the tokenizer in the directory of a preset, or `None`."""
    return presets.Documents(Path(directory)).get("tokenizer.json", {}).get("class_name")


class PresetTable:
    """The attribute `presets` of a model class: the table of what it can load, read anew.

    The entries are those of keras_hub: `metadata`, here from `preset.json`, and a handle.
    """

    def __get__(self, instance, owner):
        # Keras looks at every attribute of a model that it saves or loads.
        return self.read(owner) if instance is None else _TableWhenAsked(lambda: self.read(owner))

    def read(self, owner):
        """The table of a model class as a dict."""
        return {
            name: {"metadata": _metadata(info), "kaggle_handle": info["handle"]}
            for name, info in presets.list_presets().items()
            if self._loads(owner, info)
        }

    @staticmethod
    def _loads(owner, info):
        saved = {info.get("task"), info.get("backbone")}
        return any(cls.__name__ in saved for cls in [owner, *_subclasses(owner)])


class _TableWhenAsked(Mapping):
    """A dict that a function returns, anew for every question."""

    def __init__(self, read):
        self._read_table = read

    def __getitem__(self, name):
        return self._read_table()[name]

    def __iter__(self):
        return iter(self._read_table())

    def __len__(self):
        return len(self._read_table())

    def __repr__(self):
        return repr(self._read_table())


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
