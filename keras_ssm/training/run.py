"""One run of a recipe: training that can be interrupted, scores, and the preset."""

import contextlib
from pathlib import Path

import keras

from keras_ssm import hub
from keras_ssm.atomic_file import writing_file
from keras_ssm.checks import check_positive
from keras_ssm.scratch import SAVING, leftovers
from keras_ssm.training.best_weights import LAST, BestWeights
from keras_ssm.training.clock import Clock
from keras_ssm.training.learning_curve import LearningCurve
from keras_ssm.training.not_finite import FirstNotFinite, NotFinite, RepetitionDone, StopAtNaN
from keras_ssm.training.preset_facts import facts_of, row_of
from keras_ssm.training.progress import Progress
from keras_ssm.training.recipe import Recipe
from keras_ssm.training.results import origin, read_json, write_json
from keras_ssm.training.run_backup import RunBackup
from keras_ssm.training.validation import Validation
from keras_ssm.types import PathLike


def train(
    recipe: Recipe,
    system: str,
    data: PathLike | None,
    out: PathLike,
    seed: int = 0,
    overrides: dict | None = None,
    command: str | None = None,
    limit: int | None = None,
    test: bool = True,
) -> dict:
    """Trains one model by a recipe, scores it, and saves the results.

    A run that was interrupted goes on after its last whole epoch, with the same batches and, on a
    CPU, the same losses to the last bit as if nothing had happened. A run that is complete is not
    repeated. In `out` are:

    - `results.json`: what was run, where and for how long, and the scores.
    - `log.csv`, `log.png`: the learning curve; the picture where matplotlib is installed.
    - `<system>_<recipe>`: the preset, with its card, of a system that is no baseline.
    - `backup`, `best.weights.h5`: from which a run goes on, and the best weights if it selects.
    - `last_good.weights.h5`: where a loss was no number, the weights before that.

    Args:
        recipe: `Recipe`, as `keras_ssm.recipes.get` returns it.
        system: str. Of `recipe.systems`.
        data: str, `Path` or `None`. Folder of all data, in which a recipe reads its own; `None` for
            a recipe that needs none.
        out: str or `Path`. Directory of this run alone.
        seed: int. Decides initial values, batches and dropout. Defaults to `0`.
        overrides: dict or `None`. Settings in place of the recipe's.
        command: str or `None`. How to repeat the run, for the card.
        limit: int or `None`. A smoke run: at most so many batches an epoch, as many rows in the
            other parts, and one epoch unless `overrides` has `epochs`.
        test: bool. Whether the test part is read. If not, while settings are chosen, the
            validation part alone is scored and no preset is made. Defaults to `True`.

    Returns:
        Dict: what `results.json` holds.

    Raises:
        ValueError: for unknown systems or settings, data that are not there, a directory of
            another run, or a loss that is no number.

    Example:
        ```python
        from keras_ssm import recipes, training
        recipe = recipes.get("tinyshakespeare")
        # training.train(recipe, "mamba2", data="data", out="runs/mamba2")
        ```
    """
    settings = _settings(recipe, system, overrides, limit)
    splits = recipe.arrange(recipe.read_below(data), settings)
    if limit is not None:
        splits = recipe.limited(splits, limit, settings)
    parts = {"validation": splits.validation, "test": splits.test if test else None}
    parts = {name: part for name, part in parts.items() if part is not None}
    if not parts:
        raise ValueError(
            "Without the test part there must be a validation part to score; `validation` is its "
            f"share where a recipe has that setting. Received: test=False, {recipe.name}"
        )
    out = Path(out).expanduser()
    request = {"recipe": recipe.name, "system": system, "seed": seed, "settings": settings}
    request |= {} if limit is None else {"limit": limit}
    request |= {} if test else {"test": False}
    _claim(out, {**request, "backend": keras.config.backend()})
    if (out / "results.json").is_file():
        return read_json(out / "results.json")
    model, clock = _trained(recipe, splits, out, request)
    results = {
        **request,
        **{name: round(value, 1) for name, value in clock.seconds.items()},
        "steps": clock.steps,
        "parameters": model.count_params(),
        **origin(),
        "command": command,
        "scores": {name: recipe.score(model, part, settings) for name, part in parts.items()},
    }
    if system not in recipe.baselines and test:
        save(model, recipe, results, out / f"{system}_{recipe.name}", splits.test)
    write_json(out / "results.json", results)
    return results


def _settings(recipe, system, overrides, limit):
    overrides = dict(overrides or {})
    if limit is not None:
        check_positive(limit=limit)
        overrides.setdefault("epochs", 1)
    settings = recipe.settings_of(system, overrides)
    check_positive(epochs=settings["epochs"])
    if settings.get("patience", 0) and settings.get("select", LAST) == LAST:
        raise ValueError(
            "`patience` counts epochs without a better score: name its metric in `select`. "
            f"Received: patience={settings['patience']}, select='{LAST}'"
        )
    return settings


def _trained(recipe, splits, out, request):
    """Trains the model of a run, or finishes its training; returns it and its clock."""
    system, seed, settings = request["system"], request["seed"], request["settings"]
    limit = request.get("limit")
    model = recipe.make_model(system, seed, settings)
    states, callbacks = {"clock": Clock()}, []
    metric = settings.get("select")
    if metric is not None and splits.validation is not None:
        states["best"] = BestWeights(
            out / "best.weights.h5", metric, metric in recipe.rising, settings.get("patience", 0)
        )
        callbacks = [Validation(lambda model: recipe.score(model, splits.validation, settings))]
    elif metric not in (None, LAST):
        raise ValueError(
            "`select` goes with a validation part, of which there is none: choose 'last'. "
            f"Received: select={metric!r}"
        )
    progress = Progress(f"{recipe.name}, {system}, seed {seed}", settings["epochs"])
    curve = LearningCurve(out / "log.csv")
    callbacks = [
        *(StopAtNaN(), *callbacks, curve, progress, *states.values()),
        RunBackup(out / "backup", states),
    ]
    try:
        recipe.fit(model, splits, seed, settings, callbacks, limit)
    except NotFinite as error:
        progress.close()
        curve.draw()
        raise ValueError(_explained(error, recipe, splits, out, request)) from None
    finally:
        progress.close()
    return model, states["clock"]


def _explained(error, recipe, splits, out, request):
    """Repeats the epoch in which numbers were not finite, step by step; returns a message."""
    model = recipe.make_model(request["system"], request["seed"], request["settings"])
    watcher = FirstNotFinite(out / "last_good.weights.h5", error)
    callbacks = [RunBackup(out / "backup", saving=False), watcher]
    with contextlib.suppress(RepetitionDone):
        recipe.fit(
            model, splits, request["seed"], request["settings"], callbacks, request.get("limit")
        )
    first = watcher.first
    if first is None:
        return error.message("A repetition of that epoch did not show it again. ")
    others = len(first.paths) - 1
    return error.message(
        f"The first weight to go was '{first.paths[0]}'"
        f"{f', with {others} others' if others else ''}, at step {first.batch + 1} of epoch "
        f"{first.epoch + 1}; before it the largest number was {first.size:.3g}, in "
        f"'{first.largest}'. The last good weights are in '{watcher.path}'. "
    )


def save(model, recipe, results, directory, part):
    """Saves the preset of a run, whose scores are those of the test part, and its card."""
    facts = facts_of(recipe, results["settings"], [row_of(recipe, results)], part)
    model.save_to_preset(directory, info={**facts, "name": directory.name})
    with writing_file(directory / "README.md") as file:
        file.write_text(hub.card(directory), encoding="utf-8")


def _claim(out, request):
    """Makes the directory of a run, or checks that it belongs to this run."""
    path = out / "run.json"
    if path.is_file():
        recorded = read_json(path)
        complete = {**request, **recorded}  # facts that an older run did not record count as equal
        if complete != request:
            differing = [key for key in complete if request.get(key) != complete[key]]
            raise ValueError(
                f"'{out}' must be the directory of this run alone: name another `out`. "
                f"Received: that of {recorded['system']}, seed {recorded['seed']}, "
                f"{recorded['settings']}, which differs in {', '.join(differing)}"
            )
        return
    # Leftovers of a run that was killed at this point are no other run.
    if out.is_dir() and {*out.iterdir()} - {*leftovers(path, SAVING)}:
        raise ValueError(f"`out` must be an empty or a new directory. Received: '{out}'")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, request)
