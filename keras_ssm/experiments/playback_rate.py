"""Spoken digits at other sampling rates than the one of training, without training."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_ssm import presets, recipes, signals
from keras_ssm.checks import check_number
from keras_ssm.experiments.tables import add_rows
from keras_ssm.models import SSMClassifier
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.recipes.spoken_digits import RATE
from keras_ssm.training import Part
from keras_ssm.training.results import read_json
from keras_ssm.types import PathLike

RATES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
COLUMNS = ("system", "seed", "rate", "reading", "recordings", "accuracy", "source")


def playback_rate(
    sources: Iterable[PathLike],
    data: PathLike,
    out: PathLike,
    rates: Iterable[float] = RATES,
    limit: int | None = None,
) -> list[dict]:
    """Scores trained models of spoken digits on their test part at other sampling rates.

    The recordings are resampled by `signals.resample` to each rate, and read in three ways:

    - `"as it is"`: the model takes the samples as if they had its own rate.
    - `"rescaled"`: by `model.rescaled`, where every layer is told how far apart its samples are. It
      needs a state-space model.
    - `"resampled back"`: brought to the model's own rate first, as any preprocessor can do. What a
      lower rate did not hold stays lost.

    Args:
        sources: directories of complete runs of the recipe `spoken_digits`, of any of its systems
            and baselines; or presets that it made, by name or directory.
        data: str or `Path`. Folder of all data.
        out: str or `Path`. Directory of `rates.csv`, and of `rates.png` by the command.
        rates: floats. Rates in units of that of training. Defaults to 0.4 to 1.6 by tenths.
        limit: int or `None`. So many recordings, spread over the test part. Defaults to all.

    Returns:
        List of dicts: the rows of `rates.csv`, one for each model, rate and reading.

    Raises:
        ValueError: for sources of another recipe, runs that are not complete, rates that are not
            positive, or data that are not there.

    Example:
        ```python
        runs = ["runs/spoken_digits-s4d-0", "runs/spoken_digits-waveform_cnn-0"]
        # keras_ssm.experiments.playback_rate(runs, "data", "runs/rates")
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 4.2: speech at half the sampling rate.
    """
    sources, rates, out = list(sources), list(rates), Path(out).expanduser()
    for rate in rates:
        check_number("rates", rate, low=0.05, high=20)
    recipe, rows = recipes.get("spoken_digits"), []
    recordings = recipe.read(Path(data).expanduser())
    runs_and_models = [_opened(recipe, source) for source in sources]
    out.mkdir(parents=True, exist_ok=True)
    for source, (run, model) in zip(sources, runs_and_models, strict=True):
        part = recipe.arrange(recordings, run["settings"]).test
        part = part if limit is None else part.spread(limit)
        for rate in rates:
            for reading, reader, x in _readings(model, part.x, rate):
                logits = recipe.logits(reader, Part(x, part.y), run["settings"])
                accuracy = float(np.mean(logits.argmax(axis=1) == part.y))
                values = (run["system"], run["seed"], rate, reading, part.size, round(accuracy, 4))
                rows.append(dict(zip(COLUMNS, (*values, Path(source).name), strict=True)))
        # Writes all rows so far, and keeps the rows of other sources from earlier calls.
        add_rows(out / "rates.csv", rows, COLUMNS, ("source",))
    return rows


def _readings(model, x, rate):
    """The ways of reading recordings at another rate: the name, the model, and what it reads."""
    rows = [np.asarray(row, "float32") for row in x]
    resampled = [signals.resample(row, RATE, RATE * rate) for row in rows]
    yield "as it is", model, resampled
    if rate == 1:
        return
    if isinstance(model, SSMClassifier):
        yield "rescaled", model.rescaled(1 / rate), resampled
    yield "resampled back", model, [signals.resample(row, RATE * rate, RATE) for row in resampled]


def _opened(recipe, source):
    """The facts of a run or preset, and its model."""
    path = Path(source).expanduser()
    is_run = (path / "run.json").is_file()
    if is_run and not (path / "results.json").is_file():
        raise ValueError(f"`sources` must be complete runs. Received: '{source}', which is not")
    if is_run:
        run = read_json(path / "results.json")
    else:
        run = presets.read(presets.resolve(source)).get("recipe", {})
    if run.get("recipe") != recipe.name:
        raise ValueError(
            f"`sources` must be runs or presets of the recipe '{recipe.name}'. "
            f"Received: '{source}' of {run.get('recipe')!r}"
        )
    preset_directories = (
        [file.parent for file in path.glob("*/preset.json")] if is_run else [source]
    )
    if preset_directories:
        return run, load_model(preset_directories[0])
    model = recipe.make_model(run["system"], run["seed"], run["settings"])
    model.load_weights(path / "best.weights.h5")
    return run, model
