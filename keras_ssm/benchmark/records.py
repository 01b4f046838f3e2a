"""Records of the benchmark: a CSV file for each run, with its machine and its command."""

import csv
import json
import re
from pathlib import Path
from typing import NamedTuple

from keras_ssm.atomic_file import writing_file

# `2026-11-26-03-torch.csv`: the day, the number of the run on that day, the backends.
NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(\d\d+)-[a-z-]+\.csv")
HEADER = re.compile(r"# (\w+): (.*)")

# Names of the numbers that a row holds as a list; a table has a column for each.
LISTS = {
    "shape": ("batch", "length", "features", "state"),
    "size": ("batch", "length", "features", "layers", "state"),
}
TEXTS = ("section", "backend", "layer", "method", "form", "compiled")
COLUMNS = [*TEXTS, "picked", *LISTS["size"]]

# Columns that tell the rows of a section apart.
KEYS = ("section", "backend", "layer", "shape", "method", "size", "form", "context")
KEYS += ("blocks", "width")

# Columns that tell machines apart.
MACHINE = ("processor", "cores", "system")


class Run(NamedTuple):
    """One call of `keras-ssm benchmark`.

    Attributes:
        machine: dict, as `machine.describe` returns it.
        command: str.
        date: str. `year-month-day`.
        seconds: float. What it took.
        rows: list of dicts, as `run` returns them.
    """

    machine: dict
    command: str
    date: str
    seconds: float
    rows: list


def new_path(folder, date, backends):
    """The file of a new run, whose name comes after those of the runs before it."""
    matches = (NAME.fullmatch(path.name) for path in _results(folder).glob(f"{date}-*.csv"))
    number = 1 + max((int(match[2]) for match in matches if match), default=0)
    return _results(folder) / f"{date}-{number:02d}-{'-'.join(sorted(backends))}.csv"


def write(path, run):
    """Writes a run, whole or not at all; numbers have six digits.

    Args:
        path: str or `Path`, as `new_path` gives it.
        run: `Run`.
    """
    rows = [_flat(row) for row in run.rows]
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    columns += dict.fromkeys(column for row in rows for column in row if column not in columns)
    facts = {**run._asdict(), "seconds": round(run.seconds), "machine": json.dumps(run.machine)}
    with writing_file(path) as scratch, scratch.open("w", newline="") as file:
        file.writelines(f"# {name}: {facts[name]}\n" for name in Run._fields if name != "rows")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def read(path):
    """Reads a file of `write`.

    Args:
        path: str or `Path`.

    Returns:
        `Run`. What a row has no number for is `None` there.

    Raises:
        ValueError: if it is not such a file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        facts = dict(HEADER.fullmatch(line).groups() for line in lines[: len(Run._fields) - 1])
        table = csv.DictReader(lines[len(facts) :], strict=True)
        rows = [_row(cells) for cells in table]
        machine, seconds = json.loads(facts["machine"]), float(facts["seconds"])
        run = Run(machine, facts["command"], facts["date"], seconds, rows)
        identity(run)  # refuses a machine without a name
        return run
    except (AttributeError, KeyError, TypeError, ValueError, csv.Error):
        raise ValueError(
            f"The results must be those of `keras-ssm benchmark`. Received: {path}"
        ) from None


def read_all(folder):
    """Reads every run below a folder, the oldest first.

    Args:
        folder: str or `Path`. That of `--out`.

    Returns:
        List of `Run`.

    Raises:
        ValueError: if one of the files is not such a file.
    """
    named = {path: NAME.fullmatch(path.name) for path in _results(folder).glob("*.csv")}
    order = {path: (match[1], int(match[2])) for path, match in named.items() if match}
    return [read(path) for path in sorted(order, key=order.get)]


def identity(run):
    """The facts that tell the machine of a run from other machines."""
    return tuple(run.machine[key] for key in MACHINE)


def by_machine(runs):
    """Returns the runs of each machine, in lists, each measurement in the newest run alone.

    Args:
        runs: list of `Run`, the oldest first.

    Returns:
        List of lists of `Run`; the machine that was measured most stands first.
    """
    groups = {}
    for run in runs:
        groups.setdefault(identity(run), []).append(run)
    newest = [_newest(group) for group in groups.values()]
    return sorted(newest, key=lambda group: -len(all_rows(group)))


def all_rows(runs):
    """The rows of some runs in one list."""
    return [row for run in runs for row in run.rows]


def _newest(runs):
    seen, newest = set(), []
    for run in reversed(runs):
        rows = [row for row in run.rows if _key(row) not in seen]
        seen.update(map(_key, rows))
        newest.append(run._replace(rows=rows))
    return [run for run in reversed(newest) if run.rows]


def _key(row):
    return tuple(str(row.get(key)) for key in KEYS)


def _results(folder):
    return Path(folder) / "results"


def _flat(row):
    """A row with a column for each number."""
    flat = {name: value for name, value in row.items() if name not in LISTS}
    for name in LISTS.keys() & row.keys():
        flat.update(zip(LISTS[name], row[name], strict=True))
    return flat


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else value


def _row(cells):
    if None in cells or None in cells.values():  # a line with more or fewer cells than columns
        raise ValueError
    row = {name: _value(name, text) for name, text in cells.items()}
    section = row["section"]
    if section not in ("stream", "decode"):
        name = "size" if section == "fit" else "shape"
        row[name] = [row.pop(column) for column in LISTS[name]]
    return row


def _value(name, text):
    if text == "":
        return None
    if name in TEXTS:
        return text
    if name == "picked":
        return text == "yes"
    return int(text) if text.isdecimal() else float(text)
