"""One run of a recipe: training that can be interrupted, scores, and the preset."""

import csv
import json
import math
import time
from pathlib import Path

import keras

from keras_ssm import callbacks, hub, presets, recipes
from keras_ssm.atomic_file import writing_file
from keras_ssm.machine import describe
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.recipes.recipe import FollowEpochs, Recipe
from keras_ssm.types import PathLike
from keras_ssm.version import __version__

COLUMNS = (
    *("preset", "system", "seed", "part", "metric", "value", "parameters", "steps"),
    *("wall_seconds", "processor_seconds", "backend", "machine", "version", "command"),
)


class LearningCurve(keras.callbacks.CSVLogger):
    """Holds each epoch once, also where a run ended after its row and before its backup."""

    def on_epoch_begin(self, epoch, logs=None):
        path = Path(self.filename)
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows[1:] if int(row.partition(",")[0]) < epoch]
        if len(kept) < len(rows) - 1:
            path.write_text("".join([rows[0], *kept]), encoding="utf-8")


class Clock(keras.callbacks.Callback):
    """Counts the seconds of a training, those before an interruption too.

    Args:
        path: `Path` of the JSON file that keeps them after each epoch.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.seconds = {"wall_seconds": 0.0, "processor_seconds": 0.0}

    def on_train_begin(self, logs=None):
        if self.path.is_file():
            self.seconds = json.loads(self.path.read_text(encoding="utf-8"))
        self.started = time.monotonic(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic(), time.process_time()
        for name, before, after in zip(self.seconds, self.started, now, strict=True):
            self.seconds[name] += after - before
        self.started = now
        _write(self.path, self.seconds)


class StopAtNaN(keras.callbacks.Callback):
    """Ends a training whose loss is no number, with an error that says where."""

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ValueError(
                "The loss must stay finite; a smaller `learning_rate` may help. "
                f"Received: loss={loss} after batch {batch} of an epoch"
            )


def train(
    recipe: Recipe,
    system: str,
    data: PathLike,
    out: PathLike,
    seed: int = 0,
    overrides: dict | None = None,
    command: str | None = None,
) -> dict:
    """Trains one model by a recipe, scores it, and saves what came of it.

    A run that was interrupted goes on after its last whole epoch, with the same batches as if
    nothing had happened. `out/results.json` says what was run, for how long, and the scores;
    `out/log.csv` holds the learning curve; a system that is no baseline becomes the preset
    `out/<system>_<recipe>`.

    Args:
        recipe: `Recipe`, as `keras_ssm.recipes.get` returns it.
        system: str. Of `recipe.systems`.
        data: str or `Path`. Folder of all data; a recipe reads the folder of its name.
        out: str or `Path`. Directory of this run alone.
        seed: int. Decides initial values, batches and dropout. Defaults to `0`.
        overrides: dict or `None`. Settings in place of the recipe's.
        command: str or `None`. How to repeat the run, for the card.

    Returns:
        Dict: what `results.json` holds.

    Raises:
        ValueError: for unknown systems or settings, data that are not there, a directory of
            another run, or a loss that is no number.

    Example:
        ```python
        from keras_ssm.recipes import get, run
        recipe = get("tinyshakespeare")
        # run.train(recipe, "mamba2", data="data", out="runs/mamba2")
        ```
    """
    settings = recipe.settings_of(system, overrides)
    splits = recipe.read(Path(data).expanduser())
    out = Path(out).expanduser()
    asked = {"recipe": recipe.name, "system": system, "seed": seed, "settings": settings}
    _claim(out, asked)
    model = recipe.make_model(system, seed, settings)
    batches = recipe.training_data(splits, seed, settings)
    clock = Clock(out / "clock.json")
    model.fit(
        batches,
        epochs=settings["epochs"],
        verbose=0,
        shuffle=False,  # the seed and the epoch decide the order
        callbacks=[
            FollowEpochs(batches),
            StopAtNaN(),
            clock,
            LearningCurve(str(out / "log.csv"), append=True),
            _progress(f"{recipe.name}, {system}, seed {seed}"),
            callbacks.BackupAndRestore(out / "backup", delete_checkpoint=False),
        ],
    )
    parts = {"validation": splits.validation, "test": splits.test}
    scores = {name: recipe.score(model, part, settings) for name, part in parts.items()}
    results = {
        **asked,
        **{name: round(value, 1) for name, value in clock.seconds.items()},
        "steps": settings["epochs"] * len(batches),
        "parameters": model.count_params(),
        "backend": keras.config.backend(),
        "machine": _machine(),
        "version": __version__,
        "command": command,
        "scores": scores,
    }
    if system not in recipe.baselines:
        save(model, recipe, results, out / f"{system}_{recipe.name}")
    _write(out / "results.json", results)
    return results


def save(model, recipe, results, directory):
    """Saves the preset of a run and its card."""
    facts = recipe.facts(results["system"], results["settings"])
    facts["name"] = directory.name
    facts["recipe"] = {key: results[key] for key in ("recipe", "system", "seed", "settings")}
    facts["scores"] = [
        {
            "metric": _on_test(metric),
            "value": round(value, 4),
            "command": results["command"],
        }
        for metric, value in results["scores"]["test"].items()
    ]
    facts["training"] = (
        f"Recipe `{results['recipe']}`: {results['steps']} steps in "
        f"{results['processor_seconds']:.0f} s of processor time ({results['wall_seconds']:.0f} s "
        f"by the clock) on {results['machine']}, {results['backend']}. The test part was read "
        "once, after training."
    )
    model.save_to_preset(directory, info=facts)
    with writing_file(directory / "README.md") as file:
        file.write_text(hub.card(directory), encoding="utf-8")


def evaluate(preset: PathLike, data: PathLike) -> list[tuple[str, float, float]]:
    """Scores a preset again on the test part of its recipe.

    Args:
        preset: str or `Path`. A name, a directory, or `hf://organisation/name`.
        data: str or `Path`. Folder of all data.

    Returns:
        List of tuples: the metric, what the preset says, and what was found.

    Raises:
        ValueError: if no recipe made the preset, or the data are not there.

    Example:
        ```python
        from keras_ssm.recipes import run
        # run.evaluate("mamba2_tinyshakespeare", data="data")
        ```
    """
    document = presets.read(presets.resolve(preset))
    if "recipe" not in document:
        raise ValueError(
            "A preset to evaluate must be made by `keras-ssm train`. "
            f"Received: '{preset}', whose preset.json names no recipe"
        )
    made = document["recipe"]
    recipe = recipes.get(made["recipe"])
    part = recipe.read(Path(data).expanduser()).test
    found = recipe.score(
        load_model(preset), part, recipe.settings_of(made["system"], made["settings"])
    )
    recorded = {entry["metric"]: entry["value"] for entry in document["scores"]}
    return [(m, recorded[_on_test(m)], value) for m, value in found.items()]


def _on_test(metric):
    return f"{metric} on the test part"


def rows(results: dict) -> list[dict]:
    """Returns the rows of a run in a table of results, one a score; see `COLUMNS`."""
    name = f"{results['system']}_{results['recipe']}"
    return [
        {
            **{column: results.get(column) for column in COLUMNS},
            **{"preset": name, "part": part, "metric": metric, "value": round(value, 5)},
        }
        for part, scores in results["scores"].items()
        for metric, value in scores.items()
    ]


def append_rows(path: PathLike, results: dict) -> None:
    """Writes a run into a CSV file of results, in place of what it holds of the same run.

    Args:
        path: str or `Path`. Made if it is not there.
        results: dict, as `train` returns it.
    """
    path = Path(path).expanduser()
    new = rows(results)
    known = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            known = list(csv.DictReader(file))
    same = {(row["preset"], str(row["seed"])) for row in new}
    kept = [row for row in known if (row["preset"], row["seed"]) not in same]
    with writing_file(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *new])


def _claim(out, asked):
    """Makes the directory of a run, or finds that it is that of this one."""
    path = out / "run.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != asked:
            raise ValueError(
                f"'{out}' must be the directory of this run alone: name another `out`. "
                f"Received: that of {found['system']}, seed {found['seed']}, {found['settings']}"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"`out` must be an empty or a new directory. Received: '{out}'")
    out.mkdir(parents=True, exist_ok=True)
    _write(path, asked)


def _progress(title):
    from tqdm.keras import TqdmCallback

    return TqdmCallback(verbose=0, desc=title)


def _machine():
    found = describe()
    return ", ".join([f"{found['cores']} x {found['processor']}", *found["gpus"]])


def _write(path, document):
    with writing_file(path) as file:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
