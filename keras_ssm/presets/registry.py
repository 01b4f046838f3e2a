"""Names of presets, and the directory behind a name."""

from pathlib import Path

from keras_ssm.presets.preset_files import PRESET_FILE, read, verify

HUB_SCHEME = "hf://"


def zoo():
    """Directory of the presets that come with the package."""
    here = Path(__file__).resolve().parent
    installed = here / "zoo"
    # An editable install has no copy: the presets lie beside the package in the source tree.
    return installed if installed.is_dir() else here.parents[1] / "presets"


def list_presets():
    """Returns the presets that come with the package.

    Returns:
        Dict of name to its `preset.json` as a dict: task, system, parameters, scores, licences.

    Example:
        ```python
        keras_ssm.list_presets()["s4d_digits"]["system"]  # "S4D"
        ```
    """
    found = sorted(path.parent for path in zoo().glob(f"*/{PRESET_FILE}"))
    return {directory.name: read(directory) for directory in found}


def resolve(preset):
    """Returns the verified directory of a preset.

    Args:
        preset: str or `Path`. A built-in name, a directory, or `hf://organisation/name`.

    Returns:
        `Path` of a directory whose files passed `verify`.

    Raises:
        ValueError: if there is no such preset, it could not be downloaded, or it is damaged.
    """
    if not isinstance(preset, (str, Path)):
        raise ValueError(f"`preset` must be a str or a Path. Received: preset={preset!r}")
    name = str(preset)
    if name.startswith(HUB_SCHEME):
        directory = _download(name.removeprefix(HUB_SCHEME))
    elif not isinstance(preset, Path) and (zoo() / name / PRESET_FILE).is_file():
        directory = zoo() / name
    else:
        directory = Path(preset).expanduser()
        if not directory.is_dir():
            raise ValueError(
                "`preset` must be a built-in name "
                f"({', '.join(list_presets()) or 'there are none'}), a directory, or "
                f"'hf://organisation/name'. Received: preset={name!r}"
            )
    verify(directory)
    return directory


def _download(repo_id):
    """One snapshot of a Hub repository: every file from the same commit, or an error."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(huggingface_hub.snapshot_download(repo_id))
    except HFValidationError as error:
        raise ValueError(
            f"A Hub preset is named 'hf://organisation/name'. Received: 'hf://{repo_id}'"
        ) from error
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise ValueError(
            f"Preset 'hf://{repo_id}' could not be downloaded; nothing was loaded. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
