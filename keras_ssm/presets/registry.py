"""The table of presets, read from their `preset.json`, and the directory behind a name."""

import os
from pathlib import Path

from keras_ssm.atomic_directory import directories, standing
from keras_ssm.presets import hub_snapshot
from keras_ssm.presets.found_preset import FoundPreset
from keras_ssm.presets.plain_preset import verify_plain
from keras_ssm.presets.preset_files import (
    PRESET_FILE,
    check_document,
    files_read_on_load,
    read,
    verified,
)
from keras_ssm.presets.published_models import published_format
from keras_ssm.types import PathLike

# Where the presets of this package are published: `hf://keras-ssm/<name>`.
ORGANISATION = "keras-ssm"

# Names of the presets that are published there; the table marks all others.
PUBLISHED = frozenset()

PATH_VARIABLE = "KERAS_SSM_PRESETS"


def zoo() -> Path:
    """Directory of the presets that come with the package."""
    package = Path(__file__).resolve().parent
    installed = package / "zoo"
    # An editable install has no copy: the presets lie beside the package in the source tree.
    return installed if installed.is_dir() else package.parents[1] / "presets"


def list_presets() -> dict[str, dict]:
    """Returns the table of presets: those of `KERAS_SSM_PRESETS` and those of the package.

    `KERAS_SSM_PRESETS` names directories, as `PATH` does, that hold one folder for each preset.

    Returns:
        Dict of name to its `preset.json` as a dict (task, system, parameters, data, scores,
        licences, checksums of the files) with three more entries: `handle`, its name on the Hub
        or `None`; `published`, whether it stands there; `source`, `"KERAS_SSM_PRESETS"`,
        `"package"`, or `"hub"` where the package brings the entry without the files.

    Raises:
        ValueError: if `KERAS_SSM_PRESETS` names no directory, or a `preset.json` is no JSON.

    Example:
        ```python
        keras_ssm.list_presets()["s4d_digits"]["system"]  # "S4D"
        keras_ssm.list_presets()["s4d_digits"]["handle"]  # "hf://keras-ssm/s4d_digits"
        ```
    """
    return {name: _entry(name, directory) for name, directory in sorted(_directories().items())}


def handle(name: str) -> str:
    """Name on the Hub of a preset of this package."""
    return f"{hub_snapshot.SCHEME}{ORGANISATION}/{name}"


def resolve(preset: PathLike, revision: str | None = None) -> Path:
    """Returns the verified directory of a preset.

    A name is looked up in the directories of `KERAS_SSM_PRESETS`, then among the presets of
    the package, then, where the package knows the name but does not bring the files, on the Hub;
    a directory of that name comes last.

    Args:
        preset: str or `Path`. A name of `list_presets()`, a directory, or
            `hf://organisation/name`.
        revision: str or `None`. Branch, tag or commit, for a preset on the Hub.

    Returns:
        `Path` of a directory whose files passed `verify`, or of a preset of keras_hub that is
        complete.

    Raises:
        ValueError: if there is no such preset, it could not be downloaded, or it is damaged.
    """
    return find(preset, revision).directory


def find(
    preset: PathLike | FoundPreset, revision: str | None = None, weights: bool = True
) -> FoundPreset:
    """`resolve`, with what `preset.json` says: returns a `FoundPreset`, or the one it is given.

    A directory or repository of another library's format is found as well. Without `weights`
    theirs are not downloaded.
    """
    if isinstance(preset, FoundPreset):
        return preset
    if not isinstance(preset, (str, Path)):
        raise ValueError(f"`preset` must be a str or a Path. Received: preset={preset!r}")
    name = str(preset)
    if isinstance(preset, str) and name.startswith(hub_snapshot.SCHEME):
        repo_id = name.removeprefix(hub_snapshot.SCHEME)
        return hub_snapshot.fetch(repo_id, revision, weights=weights)
    directory = _directories().get(name) if isinstance(preset, str) else None
    if directory is not None and not _has_files(directory):
        return _from_the_hub(name, directory, revision)
    directory = standing(directory or Path(preset).expanduser())
    if not directory.is_dir():
        raise ValueError(
            "`preset` must be a built-in name "
            f"({', '.join(_directories()) or 'there are none'}), a directory, or "
            f"'hf://organisation/name'. Received: preset={name!r}"
        )
    if revision is not None:
        raise ValueError(
            "`revision` goes with a preset on the Hub, 'hf://organisation/name'; this one is the "
            f"directory '{directory}'. Received: revision={revision!r}"
        )
    if (format := published_format(directory)) is not None:
        return FoundPreset(directory, None, None, format)
    if not (directory / PRESET_FILE).is_file() and (directory / "config.json").is_file():
        verify_plain(directory)
        return FoundPreset(directory, None, None)
    return verified(directory)


def _from_the_hub(name, directory, revision):
    """Fetches a preset of which only the `preset.json` is in the package."""
    packaged = read(directory)
    check_document(packaged, directory)
    preset = hub_snapshot.fetch(f"{ORGANISATION}/{name}", revision)
    if revision is None and (preset.document or {}).get("files") != packaged["files"]:
        raise ValueError(
            f"Preset '{handle(name)}' is another version than this keras_ssm knows: update "
            "keras_ssm, or name the version with `revision`. "
            f"Received: commit {preset.directory.name}"
        )
    return preset


def _directories():
    """Dict of each known name to its directory; the first directory that has it wins."""
    directory_of_name = {}
    for root in [*_own_roots(), zoo()]:
        for name, directory in directories(root).items():
            if (directory / PRESET_FILE).is_file():
                directory_of_name.setdefault(name, directory)
    return directory_of_name


def _own_roots():
    roots = [Path(r).expanduser() for r in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if r]
    for root in roots:
        if not root.is_dir():
            raise ValueError(
                f"`{PATH_VARIABLE}` must name directories, separated by '{os.pathsep}'. "
                f"Received: {root}"
            )
    return roots


def _entry(name, directory):
    document = read(directory)
    if directory.parent != zoo():
        extra = {"handle": None, "published": False, "source": PATH_VARIABLE}
    else:
        source = "package" if _has_files(directory) else "hub"
        extra = {"handle": handle(name), "published": name in PUBLISHED, "source": source}
    return {**document, **extra}


def _has_files(directory):
    """Whether a directory holds any file of a preset. If others are missing, it is damaged."""
    return bool(files_read_on_load(directory))
