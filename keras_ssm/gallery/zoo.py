"""From runs of recipes to presets with pictures, cards and their rows in `results.csv`."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_ssm import hub, presets, recipes
from keras_ssm.gallery import runs
from keras_ssm.gallery.calibration import BINS, calibration_error
from keras_ssm.gallery.costs import in_eight_bits, samples_of, step_cost, updates
from keras_ssm.gallery.halving import ROUNDED_FROM
from keras_ssm.gallery.pictures import LOG_FILE, described
from keras_ssm.gallery.png import png
from keras_ssm.gallery.subject import Subject
from keras_ssm.presets import results
from keras_ssm.training.preset_facts import facts_of, weights_size
from keras_ssm.types import PathLike

LARGEST = 2 * 2**20  # bytes of the weights of a preset in the package

# Facts that saving a preset states about its files. They stay as they are.
_SAVED_FACTS = ("system", "backbone", "library_version", "task", "task_weights", "parameters")
_SAVED_FACTS += (ROUNDED_FROM,)


def collect(
    places: Iterable[PathLike], data: PathLike | None, directory: PathLike, measure: bool = False
) -> list[str]:
    """Makes presets of runs: the first seed of each is the preset, and all have a row.

    Runs of a recipe's baselines stand beside the presets of the same task. What is there already
    stays and is completed: runs of another seed, or of a baseline, can come later.

    Args:
        places: paths of runs that `keras_ssm.training.train` left, or of folders of such.
        data: str, `Path` or `None`. Folder of all data; `None` where no recipe needs it.
        directory: str or `Path`. Folder of the presets, with `results.csv`.
        measure: bool. Whether the time of a streamed step is measured anew. Defaults to `False`.

    Returns:
        List of str. Names of the presets that were written.

    Raises:
        ValueError: for runs that are none or do not fit together, data that are not there, or
            weights above 2 MiB.
    """
    directory = Path(directory).expanduser()
    complete = runs.find(places)
    table = directory / results.RESULTS_FILE
    rows = results.merged(results.read_results(table), [run.row for run in complete])
    for name in dict.fromkeys(run.name for run in complete):
        first = next(run for run in complete if run.name == name)
        seed = next(row["seed"] for row in results.sorted_rows(rows) if row["name"] == name)
        if first.preset is not None and first.row["seed"] == seed:
            _install(first, directory / name)
    results.write_results(table, rows)
    tasks = {results.task(run.row) for run in complete}
    touched = [
        name
        for name in dict.fromkeys(row["name"] for row in results.read_results(table))
        if (directory / name / presets.PRESET_FILE).is_file()
        and results.task(_rows_of(results.read_results(table), name)[0]) in tasks
    ]
    return redraw(touched, data, directory, measure)


def redraw(
    names: Iterable[str], data: PathLike | None, directory: PathLike, measure: bool = False
) -> list[str]:
    """Draws the pictures of presets anew, and writes their `preset.json` and cards.

    Args:
        names: names of presets that a recipe made.
        data: str, `Path` or `None`. Folder of all data; `None` where no recipe needs it.
        directory: str or `Path`. Folder of the presets, with `results.csv`.
        measure: bool. Whether the time of a streamed step is measured anew. Defaults to `False`.

    Returns:
        List of str. The names.

    Raises:
        ValueError: for a preset that no recipe made or that has no row, or data that are not there.
    """
    directory = Path(directory).expanduser()
    table = results.read_results(directory / results.RESULTS_FILE)
    splits_of = functools.cache(lambda recipe: recipes.get(recipe).read_below(data))
    done = []
    for name in names:
        origin = presets.read(directory / name).get("recipe")
        rows = _rows_of(table, name)
        if origin is None or not rows:
            raise ValueError(
                f"Preset '{name}' must be made by a recipe and have a row in "
                f"{results.RESULTS_FILE}. Received: preset.json with recipe={origin}, "
                f"{len(rows)} rows"
            )
        recipe = recipes.get(origin["recipe"])
        part = recipe.arrange(splits_of(origin["recipe"]), origin["settings"]).test
        subject = Subject(directory / name, recipe, part)
        facts = facts_of(recipe, subject.settings, rows, part)
        dress(subject, facts | {"baselines": _baselines(recipe, table, rows[0])}, measure)
        done.append(name)
    return done


def _rows_of(table, name):
    return [row for row in table if row["name"] == name]


def _install(run, destination):
    """Puts the preset of a run in its place, unless it is there."""
    size = weights_size(run.preset)
    if size > LARGEST:
        raise ValueError(
            f"The weights of a preset in the package must have at most {LARGEST:,} bytes. "
            f"Received: {size:,} bytes in '{run.preset}'"
        )
    new = presets.verify(run.preset)
    with contextlib.suppress(ValueError):
        present = presets.verify(destination)
        there = {**present["files"], **present.get(ROUNDED_FROM, {})}
        if all(there.get(name) == digest for name, digest in new["files"].items()):
            return
    with presets.writing(destination) as scratch:
        for name in new["files"]:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.preset / name, scratch / name)
        log = run.directory / LOG_FILE
        if log.is_file():
            shutil.copyfile(log, scratch / LOG_FILE)
        facts = {key: value for key, value in new.items() if key not in ("files",)}
        facts["recipe"] = {**new["recipe"], "settings": run.results["settings"]}
        presets.describe(scratch, {**facts, "name": destination.name})


def dress(subject: Subject, facts: dict, measure: bool = False) -> None:
    """Writes the facts, the card and the pictures of a preset anew.

    Args:
        subject: `Subject`.
        facts: dict. Facts for `preset.json`, beside those that are measured here.
        measure: bool. Whether the time of a streamed step is measured anew. Defaults to `False`.
    """
    old, directory = subject.document, subject.directory
    facts = {key: old[key] for key in _SAVED_FACTS if key in old} | facts
    facts["size"] = weights_size(directory)
    if subject.classifies:
        error = calibration_error(subject.logits, subject.part.y, BINS).error
        facts["calibration"] = {"ece": round(error, 4), "bins": BINS, "part": "test"}
    facts["int8"] = in_eight_bits(subject)
    if subject.streams or updates(subject.model):
        # Measurements differ each time: an earlier one stays, unless a new one is asked for.
        kept = old.get("streaming") if not measure else None
        if kept and kept.get("samples", 1) != samples_of(subject.model):
            kept = None  # it was the cost of a sample that waits for others
        facts["streaming"] = kept or step_cost(subject.model, _one_step(subject))
    drawn = described(subject)
    facts["pictures"] = [{"file": name, "alt": alt} for name, (_, alt) in drawn.items()]
    if "sample" in old:
        facts["sample"] = old["sample"]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch) / directory.name
        scratch.mkdir()
        kept = {name for name in old["files"] if not name.endswith(".png")}
        for name in kept:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / name, scratch / name)
        for name, (figure, _) in drawn.items():
            (scratch / name).write_bytes(png(figure))
        presets.describe(scratch, facts)
        (scratch / presets.CARD_FILE).write_text(hub.card(scratch), encoding="utf-8")
        if _content(scratch) != _content(directory):
            with presets.writing(directory) as place:
                shutil.copytree(scratch, place, dirs_exist_ok=True)


def _content(directory):
    files = (path for path in Path(directory).rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def _one_step(subject):
    """One sample of the test part, as a stream takes it."""
    part = subject.part
    if not isinstance(part, np.ndarray):  # recipes hold their sequences under one of three names
        part = next(getattr(part, name) for name in ("x", "data", "signals") if hasattr(part, name))
        part = part[0]
    return np.asarray(part)[:1]


def _baselines(recipe, table, own):
    """The baselines of the same task, in the order of the recipe."""
    task = results.task(own)
    baselines = []
    for system in recipe.baselines:
        rows = [row for row in table if row["system"] == system and results.task(row) == task]
        if not rows:
            continue
        values = results.scores(rows)[rows[0]["metric"]]
        mean, _ = results.mean_and_spread(list(values.values()))
        baselines.append(
            {
                "system": system,
                "metric": rows[0]["metric"],
                "value": float(f"{mean:.6g}"),
                "seeds": values,
                "parameters": int(rows[0]["parameters"]),
                "processor_seconds": float(rows[0]["processor_seconds"]),
            }
        )
    return baselines
