"""What `keras-ssm demo` shows: the life of a preset on real data that come with the package."""

import importlib

from keras_ssm import presets

# Without a name, `keras-ssm demo` shows the first of these that is installed.
FAVOURITES = ("s4d_ecg_ahead", "s4d_digits")

# Libraries that a demonstration needs beside a backend.
LIBRARIES = {"ecg": ("matplotlib",), "digits": ("matplotlib", "sklearn")}


def favourite() -> str:
    """Returns the preset that is shown where none is named."""
    names = presets.list_presets()
    return next(name for name in FAVOURITES if name in names or name == FAVOURITES[-1])


def kind(preset: str) -> str:
    """Returns which of `LIBRARIES` shows a preset, by what its `preset.json` says of its data.

    Raises:
        ValueError: for a preset of other data, none of which come with the package.
    """
    document = presets.read(presets.resolve(preset))
    if document.get("recipe", {}).get("recipe") == "ecg_ahead":
        return "ecg"
    if document.get("data", {}).get("name") == "handwritten digits":
        return "digits"
    raise ValueError(
        "`preset` must be one of handwritten digits, or one that forecasts the electrocardiogram: "
        "these data come with the package. Received: "
        f"preset={preset!r}, of data {document.get('data', {}).get('name')!r}"
    )


def run(preset, out, console):
    """Shows a preset.

    Args:
        preset: str. Name or directory of a preset that `kind` knows.
        out: `Path`. Directory of the pictures and the new preset.
        console: `rich.console.Console`.

    Raises:
        RuntimeError: if streaming or a saved copy disagree with the model.
    """
    out.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"{__name__}.{kind(preset)}").run(preset, out, console)
