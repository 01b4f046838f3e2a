from collections.abc import Collection
from pathlib import Path

from keras_ssm import presets
from keras_ssm.convert.checkpoint import read_model
from keras_ssm.convert.recorded_outputs import compare_recorded
from keras_ssm.convert.report import Report
from keras_ssm.types import PathLike

# Relative to the largest recorded entry, in float32.
TOLERANCE = 5e-5


def convert_checkpoint(
    source: PathLike,
    destination: PathLike,
    format: str = "auto",
    config: dict | PathLike | None = None,
    ignore: Collection[str] = (),
    check: PathLike | None = None,
    overwrite: bool = False,
    **overrides,
) -> Report:
    """Converts a published checkpoint to a preset of this package.

    Args:
        source: str or `Path`. The checkpoint: a file, the directory of a Mamba model, or its
            repository, `hf://organisation/name`.
        destination: str or `Path`. Directory of the preset, written whole or not at all.
        format, config, ignore: as in `load_checkpoint`.
        check: str, `Path` or `None`. An npz file of recorded inputs and logits, as
            `compare_recorded` takes it: nothing is written if the model does not reproduce
            them within 5e-5 of their maximum.
        overwrite: bool. Whether a preset that is there is replaced, and a directory that holds
            something else becomes one; its files of other names stay. Defaults to `False`.
        **overrides: as in `load_checkpoint`.

    Returns:
        Tuple of the `Report` and the `Comparison` (or `None`).

    Raises:
        ValueError: as `load_checkpoint`; if the logits differ; or if something stands at the
            destination without `overwrite`.
        ImportError: if a library that the file needs is not installed.
    """
    destination = Path(destination).expanduser()
    _check_destination(destination, overwrite)
    name, source = str(source), _local(source)
    model, report = read_model(source, format, config, ignore, overrides)
    comparison = None if check is None else compare_recorded(model, check)
    if comparison is not None and not comparison.largest < TOLERANCE:
        raise ValueError(
            f"The model must reproduce '{comparison.name}' of '{check}' within {TOLERANCE:g} of "
            f"its maximum; nothing was written. Received: differences of "
            f"{', '.join(f'{row:.1e}' for row in comparison.rows[:8])}"
        )
    origin = {"format": report.format, **_origin(name, source, report.format)}
    model.save_to_preset(destination, info={"converted_from": origin})
    return report, comparison


def _local(source):
    """The file or directory behind a name, which may be that of a repository of the Hub."""
    if isinstance(source, str) and source.startswith(presets.SCHEME):
        preset = presets.find(source)
        if preset.format is None:
            raise ValueError(
                "A repository to convert must hold a published model in another format. "
                f"Received: {source}, a preset of Keras"
            )
        return preset.directory
    return presets.directory_of(Path(source).expanduser())


def _origin(name, source, format):
    """Where a preset is from: the name of a file or directory, and checksums."""
    if not source.is_dir():
        return {"file": source.name, "sha256": presets.sha256(source)}
    files = presets.weight_names(source, format)
    here = name if name.startswith(presets.SCHEME) else source.resolve().name
    return {"directory": here, "sha256": {file: presets.sha256(source / file) for file in files}}


def _check_destination(destination, overwrite):
    occupied = destination.is_file() or (
        not overwrite and destination.is_dir() and any(destination.iterdir())
    )
    if occupied:
        raise ValueError(
            "The destination must be a new directory, or `overwrite` must be True to replace what "
            f"is there. Received: '{destination}'"
        )
