"""Names that changed since a preset was written, and a copy of the preset with the new names."""

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

PACKAGE = "keras_ssm>"
_WEIGHTS_MAP = "model.weights.json"


@dataclasses.dataclass(frozen=True)
class Migration:
    """Names that one format version changed.

    Args:
        classes: dict. Name of a class before to its name now: `{"Block": "SSMBlock"}`.
        arguments: dict. Name of a class now to a dict of its constructor's arguments, before to
            now: `{"SSMBlock": {"ssm": "mixer"}}`.
        weights: dict. Part of a key of the weights files before to now, without its number:
            `{"block": "ssm_block", "ssm": "mixer"}`. These are the names of attributes inside
            a layer, and of classes, in snake case, in a model.
    """

    classes: dict = dataclasses.field(default_factory=dict)
    arguments: dict = dataclasses.field(default_factory=dict)
    weights: dict = dataclasses.field(default_factory=dict)


# Entry i brings format version i + 1 to i + 2: a rename is one entry at the end, never an edit.
MIGRATIONS = (Migration(classes={"SSMClassifierPreprocessor": "SequencePreprocessor"}),)


def format_version() -> int:
    """The format version that this library writes, and the newest that it reads."""
    return len(MIGRATIONS) + 1


def pending(document: dict | None) -> tuple[Migration, ...]:
    """Returns the migrations that a preset needs.

    Args:
        document: dict or `None`. Its `preset.json`; a preset without one counts as the oldest.
    """
    return MIGRATIONS[(1 if document is None else document["format_version"]) - 1 :]


def migrate_document(document: dict) -> dict:
    """Returns `preset.json` with the class names of today."""
    for migration in pending(document):
        for key in {"task", "system", "backbone"} & set(document):
            document = {**document, key: migration.classes.get(document[key], document[key])}
    return document


@contextlib.contextmanager
def migrated(directory: Path, document: dict | None, names: Collection[str]) -> Iterator[Path]:
    """A preset with the names of today: the directory itself, or a copy that goes afterwards.

    Args:
        directory: `Path`. A verified preset; never written to.
        document: dict or `None`. Its `preset.json`.
        names: collection of str. Its files that loading reads.

    Yields:
        `Path` of the preset to load.
    """
    steps = pending(document)
    if not steps:
        yield directory
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / directory.name
        for name in sorted(names):
            path = copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / name, path)
            for step in steps:
                if path.suffix == ".json" and path.parent == copy:
                    _migrate_json(path, step)
                elif path.name.endswith(".weights.h5"):
                    _migrate_weights(path, step.weights)
        yield copy


def _migrate_json(path, step):
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == _WEIGHTS_MAP:
        renamed = {_key(k, step.weights): v for k, v in content["weight_map"].items()}
        content = {**content, "weight_map": renamed}
    else:
        content = _migrate_config(content, step)
    path.write_text(json.dumps(content), encoding="utf-8")


def _migrate_config(value, step):
    if isinstance(value, list):
        return [_migrate_config(item, step) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _migrate_config(item, step) for key, item in value.items()}
    registered = value.get("registered_name")
    if isinstance(registered, str) and registered.startswith(PACKAGE):
        former = registered.removeprefix(PACKAGE)
        name = step.classes.get(former, former)
        value |= {"registered_name": PACKAGE + name, "class_name": name}
        arguments = step.arguments.get(name, {})
        if isinstance(value.get("config"), dict):
            value["config"] = {arguments.get(k, k): v for k, v in value["config"].items()}
    return value


def _migrate_weights(path, renames):
    import h5py

    with h5py.File(path, "r+") as file:
        groups = []
        file.visit(groups.append)
        for group in sorted(groups, key=lambda name: -name.count("/")):
            parent, _, last = group.rpartition("/")
            if (renamed := _key(last, renames)) != last:
                file.move(group, f"{parent}/{renamed}" if parent else renamed)


def _key(path, renames):
    """A key of a weights file, `layers/block_1/ssm/vars`, with each part renamed."""

    def rename(match):
        return renames.get(match[1], match[1]) + match[2]

    return "/".join(re.sub(r"^(.*?)((?:_\d+)?)$", rename, part) for part in path.split("/"))
