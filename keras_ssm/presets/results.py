"""`results.csv` beside the presets: a row for each preset, or baseline, and seed."""

import csv
import re
import statistics
from pathlib import Path

from keras_ssm.atomic_file import writing_file
from keras_ssm.presets.registry import zoo
from keras_ssm.types import PathLike

RESULTS_FILE = "results.csv"

COLUMNS = (
    *("name", "system", "recipe", "data", "seed", "baseline", "metric", "value", "validation"),
    *("other_scores", "parameters", "weights_bytes", "epochs", "steps", "processor_seconds"),
    *("wall_seconds", "backend", "machine", "version", "commit", "command"),
)

# Scores that are shares: more is better.
_SHARES = re.compile(r"accuracy|F1|sensitivity|predictivity|precision|recall|coverage")
_SEED = re.compile(r" --seeds?(=| )\S+")


def read_results(path: PathLike | None = None) -> list[dict[str, str]]:
    """Returns the rows of a table of presets, each a dict of str by the names of `COLUMNS`.

    Args:
        path: str, `Path` or `None`. Defaults to the table of the package. A table that is not
            there has no rows.

    Example:
        ```python
        for row in keras_ssm.presets.read_results():
            print(row["name"], row["seed"], row["metric"], row["value"])
        ```
    """
    path = zoo() / RESULTS_FILE if path is None else Path(path).expanduser()
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != set(COLUMNS):
        raise ValueError(
            f"'{path}' must have the columns {', '.join(COLUMNS)}. "
            f"Received: {', '.join(map(str, rows[0]))}"
        )
    return rows


def write_results(path: PathLike, rows: list[dict]) -> None:
    """Writes a table of presets: by tasks, presets before baselines, one seed after the other.

    Args:
        path: str or `Path`. The CSV file.
        rows: list of dicts by the names of `COLUMNS`.
    """
    with writing_file(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(sorted_rows(rows))


def sorted_rows(rows: list[dict]) -> list[dict]:
    """Returns rows in the order of the table."""
    return sorted(rows, key=lambda row: (task(row), row["baseline"], row["name"], _number(row)))


def merged(rows: list[dict], new: list[dict]) -> list[dict]:
    """Returns the rows of a table with those of further runs.

    A run takes the place of the same seed. Of a name that was trained with other settings, which
    its command tells in any order, no row is kept.

    Args:
        rows: list of dicts, what the table holds.
        new: list of dicts, the rows of runs.
    """
    settings = {row["name"]: settings_of(row["command"]) for row in new}
    seeds = {(row["name"], str(row["seed"])) for row in new}
    unchanged = [
        row
        for row in rows
        if (row["name"], row["seed"]) not in seeds
        and settings.get(row["name"], settings_of(row["command"])) == settings_of(row["command"])
    ]
    return [*unchanged, *new]


def settings_of(command: str) -> tuple[str, ...]:
    """What a command that trains says beside the seed; the order in which it says so is nothing.

    Example:
        ```python
        one = keras_ssm.presets.results.settings_of("keras-ssm train etth1 --seed 1 a=1 b=2")
        other = keras_ssm.presets.results.settings_of("keras-ssm train etth1 b=2 a=1 --seed 0")
        assert one == other
        ```
    """
    return tuple(sorted(_SEED.sub("", command).split()))


def task(row: dict) -> str:
    """The name of a preset without its system. Presets of one task are compared."""
    return row["name"].removeprefix(f"{row['system']}_")


def scores(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Returns of each metric the values of all seeds; the first metric is the main one.

    Args:
        rows: list of dicts, the rows of one preset.
    """
    scores_of = {}
    for row in rows:
        pairs = [(row["metric"], row["value"])]
        for text in filter(None, row["other_scores"].split("; ")):
            pairs.append(tuple(text.rsplit(" ", 1)))
        for metric, value in pairs:
            scores_of.setdefault(metric, {})[str(row["seed"])] = float(value)
    return scores_of


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of a sample; `None` for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def is_share(metric: str) -> bool:
    """Whether a metric is printed as a percentage."""
    return _SHARES.search(metric) is not None


def _number(row):
    return int(row["seed"]) if str(row["seed"]).isdecimal() else 0
