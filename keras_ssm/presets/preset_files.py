"""Reading and writing of `preset.json`, which vouches for the files beside it."""

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from keras_ssm.atomic_directory import writing_directory
from keras_ssm.atomic_file import writing_file
from keras_ssm.presets import migrations
from keras_ssm.presets.found_preset import FoundPreset
from keras_ssm.types import PathLike

PRESET_FILE = "preset.json"
CARD_FILE = "README.md"

# Files that keras_hub reads from a preset: each must be listed with its checksum.
_READ_ON_LOAD = (
    "config.json",
    "task.json",
    "preprocessor.json",
    "tokenizer.json",
    "*_converter.json",
    "model.weights.json",
    "*.weights.h5",
)
_ASSETS = "assets/"

# Names of files that earlier versions wrote while they replaced a preset file by file.
_INTERRUPTED = "being_written"

# The types of the entries that are read. Any entry may be missing, and there may be others.
_FACTS = {
    **dict.fromkeys(("name", "description", "pipeline_tag", "task", "system", "backbone"), str),
    **dict.fromkeys(("example", "own_file", "training", "limits", "citation"), str),
    **dict.fromkeys(("data", "licences", "sample"), dict),
    **dict.fromkeys(("calibration", "streaming", "int8", "seconds"), dict),
    **dict.fromkeys(("scores", "tags", "baselines", "pictures"), list),
    **dict.fromkeys(("parameters", "size"), int),
}

# Names that mean the same as a path, as a pattern and in a URL.
_FILE_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)


def describe(directory: PathLike, facts: dict) -> None:
    """Writes `preset.json`: the facts, the format version and a checksum of every file.

    Args:
        directory: `Path`. A complete preset.
        facts: dict. What else to record: task, system, parameters, licences, scores, a sample.

    Raises:
        ValueError: if a fact is of another type than its readers expect.
    """
    directory = Path(directory)
    _check_facts(facts, directory)
    files = {name: sha256(directory / name) for name in sorted(_file_names(directory))}
    write(directory, {**facts, "format_version": migrations.format_version(), "files": files})


def write(directory: PathLike, document: dict) -> None:
    """Writes a dict as the `preset.json` of a directory; a link there is replaced."""
    text = json.dumps(document, indent=1, default=_plain) + "\n"
    with writing_file(Path(directory) / PRESET_FILE) as file:
        file.write_text(text, encoding="utf-8")


def verify(directory: PathLike) -> dict:
    """Checks a preset before anything of it is used.

    Args:
        directory: `Path`. The preset.

    Returns:
        Dict. Its `preset.json`.

    Raises:
        ValueError: if `preset.json` is missing or no JSON, the format is newer than this
            version reads, or a file is missing, altered or not listed.
    """
    return verified(directory).document


def verified(directory: PathLike) -> FoundPreset:
    """`verify`, with what vouched for the files: returns a `FoundPreset`."""
    directory = Path(directory)
    failures = 0
    while True:
        before = vouching(directory)
        try:
            return FoundPreset(directory, _verify(directory, before), before)
        except ValueError:
            # A preset that was replaced in the meantime is read once more.
            failures = failures + 1 if vouching(directory) == before else 0
            if failures == 3:
                raise


def _verify(directory, checksums):
    document = read(directory, checksums)
    check_document(document, directory)
    for complaint in complaints(directory, document).values():
        raise ValueError(complaint)
    check_unlisted(directory, document)
    return document


def vouching(directory: PathLike) -> tuple | None:
    """What vouches for the files of a preset: another after it was replaced; `None` without.

    Also after two saves, the second of which brought back what was there.
    """
    with contextlib.suppress(OSError), open(Path(directory) / PRESET_FILE, "rb") as file:
        facts = os.fstat(file.fileno())
        return file.read(), facts.st_dev, facts.st_ino, facts.st_ctime_ns
    return None


def check_unlisted(directory, document):
    """Raises a `ValueError` if loading might read a file that `preset.json` does not list."""
    unlisted = sorted(files_read_on_load(directory) - set(document["files"]))
    if unlisted:
        raise ValueError(
            f"Preset '{directory}' must list every file that loading reads. "
            f"Received: unlisted files {unlisted}"
        )


def check_document(document, directory):
    """Checks the entries of a `preset.json`. The files that it lists are not read.

    Args:
        document: dict. The `preset.json`.
        directory: `Path`. Where it stands, for messages.

    Raises:
        ValueError: for a format version that is none or newer than this library reads, or a
            list of files that is incomplete or leaves the directory.
    """
    if _INTERRUPTED in document:
        raise ValueError(
            f"Preset '{directory}' was being written when something broke off: save it again. "
            f"Received: {PRESET_FILE} with {_INTERRUPTED!r}"
        )
    version, newest = document.get("format_version"), migrations.format_version()
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(
            f"`format_version` of preset '{directory}' must be a positive integer. "
            f"Received: format_version={version!r}"
        )
    if version > newest:
        raise ValueError(
            f"Preset '{directory}' needs a newer keras_ssm: this one reads format versions up "
            f"to {newest}. Received: format_version={version!r}"
        )
    files = document.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError(
            f"`{PRESET_FILE}` of preset '{directory}' must list its files. Received: files={files}"
        )
    head = {"task.weights.h5"} if document.get("task_weights", True) else set()
    needed = {"config.json"} | ({"task.json", *head} if "task" in document else set())
    if needed - set(files):
        raise ValueError(
            f"`{PRESET_FILE}` of preset '{directory}' must list {sorted(needed - set(files))}. "
            f"Received: {sorted(files)}"
        )
    if not any(name.startswith("model") and name.endswith(".weights.h5") for name in files):
        raise ValueError(
            f"`{PRESET_FILE}` of preset '{directory}' must list the weights of the backbone. "
            f"Received: {sorted(files)}"
        )
    for name in files:
        if not _FILE_NAME.fullmatch(name) or {"..", "."} & set(name.split("/")):
            raise ValueError(f"A preset names files below its directory. Received: file={name!r}")


def complaints(directory, document):
    """Compares the files of a preset with the checksums of its `preset.json`.

    Args:
        directory: `Path`. The preset.
        document: dict. Its `preset.json`.

    Returns:
        Dict of the name of each missing or altered file to what is wrong with it.
    """
    messages = {}
    for name, expected in document["files"].items():
        path = directory / name
        if not path.is_file():
            messages[name] = (
                f"Preset '{directory}' is incomplete: download or save it again. "
                f"Received: no file {name!r}"
            )
        elif (received := sha256(path)) != expected:
            messages[name] = (
                f"File '{name}' of preset '{directory}' is damaged or was altered: its sha256 "
                f"must be {expected}. Received: {received} ({path.stat().st_size} bytes)"
            )
    return messages


def is_read_on_load(name: str) -> bool:
    """Whether loading a preset might read the file of this name, relative to its directory."""
    in_root = "/" not in name and any(
        fnmatch.fnmatchcase(name, pattern) for pattern in _READ_ON_LOAD
    )
    return in_root or name.startswith(_ASSETS)


def files_read_on_load(directory: PathLike) -> set[str]:
    """Names of the files below a directory that loading a preset might read."""
    return {name for name in _file_names(Path(directory)) if is_read_on_load(name)}


def read(directory: PathLike, vouched: tuple | None = None) -> dict:
    """Returns `preset.json` of a directory as a dict, or raises a `ValueError`.

    Args:
        directory: str or `Path`.
        vouched: what `vouching` returned, whose bytes are then not read again, or `None`.
    """
    path = Path(directory) / PRESET_FILE
    document = read_json(path, None if vouched is None else vouched[0])
    _check_facts(document, directory)
    return document


def _check_facts(document, directory):
    for key, kind in _FACTS.items():
        if key in document and not isinstance(document[key], kind):
            raise ValueError(
                f"`{key}` in the facts of preset '{directory}' must be of type {kind.__name__}. "
                f"Received: {key}={document[key]!r}"
            )
    for score in document.get("scores", []):
        if not _is_score(score):
            raise ValueError(
                f"`scores` in the facts of preset '{directory}' must hold dicts with `metric` and "
                "a number as `value`, from 0 to 1 where a `count` of examples (an integer above 0) "
                f"says of how many it is the share. Received: {score!r}"
            )

    for picture in document.get("pictures", []):
        file = picture.get("file") if isinstance(picture, dict) else None
        if not isinstance(file, str) or not isinstance(picture.get("alt"), str):
            raise ValueError(
                f"`pictures` in the facts of preset '{directory}' must hold dicts of `file` and "
                f"`alt`, both str. Received: {picture!r}"
            )


def _is_score(score):
    if not isinstance(score, dict):
        return False
    value, count = score.get("value", 0), score.get("count", 1)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        return False
    return "count" not in score or 0 <= value <= 1


def read_json(path: Path, content: bytes | None = None) -> dict:
    """Returns the object in a JSON file of a preset, or raises a `ValueError`.

    Args:
        path: `Path`.
        content: bytes of the file, if they were read, or `None`.
    """
    try:
        content = path.read_bytes() if content is None else content
        document = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"'{path.parent}' is no complete preset: `save_to_preset` writes a `{path.name}`. "
            f"Received: no file {path.name!r}"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`{path}` must be a JSON file. Received: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"`{path}` must hold an object. Received: {type(document).__name__}")
    return document


@contextlib.contextmanager
def writing(destination: PathLike) -> Iterator[Path]:
    """A scratch directory that becomes the preset `destination` when its writer succeeds.

    At every moment the old preset or the new one loads; see `writing_directory`. Files of the
    old directory that are no part of a preset, such as a model card, stay.

    Args:
        destination: str or `Path`.

    Yields:
        `Path` of the scratch directory.

    Raises:
        ValueError: if the destination is a file, or lies in a cache of the Hub.
    """
    with writing_directory(destination, _Extras(Path(destination).expanduser())) as scratch:
        yield scratch


class _Extras:
    """Whether a file of an old preset's directory stays beside a new preset."""

    def __init__(self, directory):
        self.directory = directory

    @functools.cached_property
    def listed(self):
        try:
            files = read(self.directory).get("files", {})
        except ValueError:
            files = {}
        return {PRESET_FILE, *files}

    def __call__(self, name):
        return name not in self.listed and not is_read_on_load(name)


def _plain(value):
    """Numbers of NumPy as JSON writes them."""
    return value.tolist()


def _file_names(directory):
    names = (
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    return {name for name in names if name not in (PRESET_FILE, CARD_FILE)}


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
