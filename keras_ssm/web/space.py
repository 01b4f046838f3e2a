"""The files of a Hugging Face Space that shows the page."""

import importlib.metadata
import shutil
from pathlib import Path

import keras

from keras_ssm import presets
from keras_ssm.types import PathLike
from keras_ssm.version import __version__
from keras_ssm.web.choice import choices

PACKAGE = Path(__file__).resolve().parents[1]
APP_FILE, REQUIREMENTS_FILE = "app.py", "requirements.txt"
PYTHON = "3.12"
GRADIO = "6.31.0"  # the version in constraints.txt, with which the page was tested

# Requirements of the package and of its extra `web`, beside Gradio.
NEEDS = (
    *("click", "huggingface-hub", "keras", "keras-hub", "matplotlib", "numpy", "pandas", "rich"),
    *("scipy", "tokenizers"),
)

# A Space without a GPU runs PyTorch's build for processors, which is a tenth as large.
_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"

_README = """\
---
title: keras_ssm
emoji: 🌊
colorFrom: indigo
colorTo: blue
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: {app}
license: apache-2.0
short_description: State-space models that answer while they read
tags:
  - keras
  - keras-hub
  - state-space-model
{models}---

# keras_ssm {version}

The page of `keras-ssm demo --web`: presets read what you draw or say, and a forecaster is fitted
on a table of yours. Made by `keras-ssm publish --space`; the package is beside this file, in
`keras_ssm/`, with these presets:

{listed}
"""


def write_space(directory: PathLike, backend: str | None = None) -> list[str]:
    """Writes all that a Space needs: the page, its requirements, the package, and its presets.

    The package itself is among the files, so that nothing but its requirements is installed. Of
    the presets those go along that the page shows.

    Args:
        directory: str or `Path`. A new or empty directory.
        backend: str or `None`. Keras backend of the Space. Defaults to the current one.

    Returns:
        List of str. The files, sorted.

    Raises:
        ValueError: for a directory that holds something, or requirements that are not installed,
            whose versions cannot be stated.

    Example:
        ```python
        files = keras_ssm.web.write_space("space", backend="torch")
        # cd space && python app.py
        ```
    """
    directory = Path(directory).expanduser()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"`directory` must be new or empty. Received: directory='{directory}'")
    backend = backend or keras.config.backend()
    pins = requirements(backend)
    names = sorted({name for choice in choices().values() for name in choice.presets})
    zoo = Path("presets") / "zoo"
    files = {path: PACKAGE / path for path in _sources(without=zoo)}
    for name in names:
        for path in _preset_files(presets.resolve(name)):
            files[zoo / name / path.name] = path
    for place, source in files.items():
        destination = directory / "keras_ssm" / place
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    app = (PACKAGE / "web" / APP_FILE).read_text(encoding="utf-8")
    app = app.replace('"KERAS_BACKEND", "torch"', f'"KERAS_BACKEND", "{backend}"')
    (directory / APP_FILE).write_text(app, encoding="utf-8")
    lines = [f"{name}=={version}" for name, version in pins.items() if name != "gradio"]
    lines = [_INDEX, *lines] if backend == "torch" else lines
    (directory / REQUIREMENTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    info_of = presets.list_presets()
    documents = {name: info_of[name] for name in names}
    readme = _README.format(
        gradio=pins["gradio"],
        python=PYTHON,
        app=APP_FILE,
        models=_published(documents),
        version=__version__,
        listed="\n".join(_listed(name, info) for name, info in documents.items()),
    )
    (directory / presets.CARD_FILE).write_text(readme, encoding="utf-8")
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def requirements(backend: str) -> dict[str, str]:
    """Dict from what the page needs to its version: of Gradio a fixed one, else that of here.

    Raises:
        ValueError: for something that is not installed.
    """
    versions = {"gradio": GRADIO}
    for name in (*NEEDS, backend):
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            raise ValueError(
                "A Space states the version of everything that it needs, which must be installed: "
                f"pip install 'keras-ssm[{backend},web]'. Received: no {name}"
            ) from None
    return dict(sorted(versions.items()))


def _sources(without):
    """The files of the package, but those below one folder and caches, relative to it."""
    for path in sorted(PACKAGE.rglob("*")):
        relative = path.relative_to(PACKAGE)
        if (
            path.is_file()
            and "__pycache__" not in relative.parts
            and without not in relative.parents
        ):
            yield relative


def _preset_files(directory):
    """What loading a preset reads, and its card."""
    document = presets.read(directory)
    for name in [*document["files"], presets.PRESET_FILE, presets.CARD_FILE]:
        if (directory / name).is_file():
            yield directory / name


def _published(documents):
    """The entry of the front matter by which the Hub links the presets that stand there."""
    handles = [
        info["handle"].removeprefix(presets.SCHEME)
        for info in documents.values()
        if info["published"]
    ]
    return "".join(["models:\n", *(f"  - {name}\n" for name in handles)]) if handles else ""


def _listed(name, document):
    licence = document.get("licences", {}).get("data", "not stated")
    scores = "; ".join(presets.table.score(entry) for entry in document.get("scores", []))
    return f"- `{name}`: {scores or 'no score'}. Data: {licence}."
