"""Reading and writing of `preset.json`, which vouches for the files beside it."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

FORMAT_VERSION = 1
PRESET_FILE = "preset.json"
CARD_FILE = "README.md"

# What keras_hub reads from a preset: none of it may stand there unvouched.
_READ_ON_LOAD = ("*.json", "*.weights.h5", "assets/**/*")


def describe(directory, facts):
    """Writes `preset.json`: the facts, the format version and a checksum of every file.

    Args:
        directory: `Path`. A complete preset.
        facts: dict. What else to record: task, system, parameters, licences, scores, a sample.
    """
    directory = Path(directory)
    files = {name: _sha256(directory / name) for name in sorted(_file_names(directory))}
    document = {**facts, "format_version": FORMAT_VERSION, "files": files}
    (directory / PRESET_FILE).write_text(
        json.dumps(document, indent=1, default=_plain) + "\n", encoding="utf-8"
    )


def verify(directory):
    """Checks a preset before anything of it is used.

    Args:
        directory: `Path`. The preset.

    Returns:
        Dict. Its `preset.json`.

    Raises:
        ValueError: if `preset.json` is missing or no JSON, the format is newer than this
            version reads, or a file is missing, altered or not listed.
    """
    directory = Path(directory)
    document = read(directory)
    version = document.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(
            f"`format_version` of preset '{directory}' must be a positive integer. "
            f"Received: format_version={version!r}"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"Preset '{directory}' needs a newer keras_ssm: this one reads format versions up "
            f"to {FORMAT_VERSION}. Received: format_version={version!r}"
        )
    files = document.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError(
            f"`{PRESET_FILE}` of preset '{directory}' must list its files. Received: files={files}"
        )
    needed = {"config.json"} | ({"task.json", "task.weights.h5"} if "task" in document else set())
    if needed - set(files):
        raise ValueError(
            f"`{PRESET_FILE}` of preset '{directory}' must list {sorted(needed - set(files))}. "
            f"Received: {sorted(files)}"
        )
    for name, expected in files.items():
        path = directory / name
        # By name: the files of a Hub snapshot are links into its cache.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"A preset names files below its directory. Received: file={name!r}")
        if not path.is_file():
            raise ValueError(
                f"Preset '{directory}' is incomplete: download or save it again. "
                f"Received: no file {name!r}"
            )
        received = _sha256(path)
        if received != expected:
            raise ValueError(
                f"File '{name}' of preset '{directory}' is damaged or was altered: its sha256 "
                f"must be {expected}. Received: {received} ({path.stat().st_size} bytes)"
            )
    present = {
        path.relative_to(directory).as_posix()
        for pattern in _READ_ON_LOAD
        for path in directory.glob(pattern)
        if path.is_file()
    }
    unlisted = sorted(present - set(files) - {PRESET_FILE})
    if unlisted:
        raise ValueError(
            f"Preset '{directory}' must list every file that loading reads. "
            f"Received: unlisted files {unlisted}"
        )
    return document


def read(directory):
    """Returns `preset.json` of a directory as a dict, or raises a `ValueError`."""
    path = Path(directory) / PRESET_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"'{directory}' is no complete preset: `save_to_preset` writes a `{PRESET_FILE}`. "
            f"Received: no file {PRESET_FILE!r}"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"`{path}` must be a JSON file. Received: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"`{path}` must hold an object. Received: {type(document).__name__}")
    return document


@contextlib.contextmanager
def writing(destination):
    """A scratch directory that becomes `destination` when its writer succeeds.

    Where the destination exists, the new files replace those of the same name and those that
    its old `preset.json` listed; others, such as a model card, stay. `preset.json` goes first
    and comes last, so that an interrupted exchange never passes for a preset.

    Args:
        destination: str or `Path`.

    Yields:
        `Path` of the scratch directory.
    """
    destination = Path(destination).expanduser().absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        yield scratch
        if destination.exists():
            _exchange(scratch, destination)
        else:
            scratch.chmod(0o755)
            os.rename(scratch, destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _exchange(scratch, destination):
    try:
        old = set(read(destination).get("files", {}))
    except ValueError:
        old = set()
    (destination / PRESET_FILE).unlink(missing_ok=True)
    new = _file_names(scratch)
    for name in old - new:
        (destination / name).unlink(missing_ok=True)
    for name in sorted(new):
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, target)
    for name in (CARD_FILE, PRESET_FILE):
        if (scratch / name).exists():
            os.replace(scratch / name, destination / name)


def _plain(value):
    """Numbers of NumPy as JSON writes them."""
    return value.tolist()


def _file_names(directory):
    names = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    return {name for name in names if name not in (PRESET_FILE, CARD_FILE)}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
