"""Runs of recipes on the disk, and to which presets they belong."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from keras_ssm import presets, recipes
from keras_ssm.training import Recipe
from keras_ssm.training.preset_facts import row_of, weights_size
from keras_ssm.training.results import read_json


class Run(NamedTuple):
    """A run that is complete.

    Fields:
        directory: `Path`.
        results: dict. Its `results.json`.
        recipe: `Recipe`.
        row: dict. Its row in the table of presets.
    """

    directory: Path
    results: dict
    recipe: Recipe
    row: dict

    @property
    def name(self) -> str:
        """Name of the preset, or of the baseline."""
        return self.row["name"]

    @property
    def preset(self) -> Path | None:
        """Directory of the preset that the run left; `None` of a baseline."""
        directories = [path.parent for path in self.directory.glob(f"*/{presets.PRESET_FILE}")]
        return directories[0] if directories else None


def find(places: Iterable[Path]) -> list[Run]:
    """Returns the complete runs in directories, or anywhere below them, by name and seed.

    Args:
        places: paths of runs, or of folders of runs.

    Raises:
        ValueError: if there is none, for smoke runs, or runs of one preset that differ in more
            than the seed.
    """
    places = [Path(place).expanduser() for place in places]
    files = sorted({file for place in places for file in place.rglob("results.json")})
    if not files:
        raise ValueError(
            "There must be a complete run, with its results.json. "
            f"Received: {', '.join(map(str, places)) or 'no directory'}"
        )
    complete = sorted(map(_run, files), key=lambda run: (run.name, run.results["seed"]))
    for one, other in itertools.pairwise(complete):
        if one.name != other.name:
            continue
        differing = _differing(one.results["settings"], other.results["settings"])
        if differing or one.results["seed"] == other.results["seed"]:
            fault = f"settings {', '.join(differing)}" if differing else "the same seed"
            raise ValueError(
                f"Runs of '{one.name}' must differ in the seed alone. "
                f"Received: '{one.directory}' and '{other.directory}' with {fault}"
            )
    return complete


def _run(file):
    results = read_json(file)
    if "limit" in results or "test" not in results.get("scores", {}):
        raise ValueError(
            "A preset is made of whole runs whose test part was read. "
            f"Received: '{file.parent}', a smoke run or one with --no-test"
        )
    recipe = recipes.get(results["recipe"])
    run = Run(file.parent, results, recipe, {})
    size = None if run.preset is None else weights_size(run.preset)
    return run._replace(row=row_of(recipe, results, size))


def _differing(one, other):
    return [f"{key}" for key in {**one, **other} if one.get(key) != other.get(key)]
