"""Results of runs: the machine and versions that made them, and tables of their scores."""

import csv
import json
import platform
import shutil
import statistics
import subprocess
from pathlib import Path

import keras

from keras_ssm.atomic_file import writing_file
from keras_ssm.machine import describe
from keras_ssm.presets.results import settings_of
from keras_ssm.types import PathLike
from keras_ssm.version import __version__

ROOT = Path(__file__).resolve().parents[2]  # of the package, in a checkout

COLUMNS = (
    *("preset", "system", "seed", "part", "metric", "value", "parameters", "steps"),
    *("wall_seconds", "processor_seconds", "backend", "machine", "version", "command"),
    *("spread", "commit", "versions", "limit"),
)


def origin() -> dict:
    """Returns what makes a run: backend, machine, versions and, in a checkout, the commit."""
    facts = describe()
    return {
        "backend": keras.config.backend(),
        "machine": ", ".join([f"{facts['cores']} x {facts['processor']}", *facts["gpus"]]),
        "version": __version__,
        "versions": {"python": platform.python_version(), **facts["versions"]},
        "commit": commit(),
    }


def commit(root: Path = ROOT) -> str | None:
    """Returns the commit of the package, `None` where it is no checkout of git.

    Args:
        root: `Path`. The folder that holds the package. A checkout of something else, in which
            the package is installed, does not count.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def asked(*words):
        process = subprocess.run([git, "-C", root, *words], capture_output=True, text=True)
        return process.stdout.strip() if process.returncode == 0 else None

    top = asked("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None
    head = asked("rev-parse", "HEAD")
    changed = head and asked("status", "--porcelain", "--untracked-files=no")
    return f"{head} with changes" if changed else head


def rows(results: dict) -> list[dict]:
    """Returns the rows of a run in a table of results, one a score; see `COLUMNS`."""
    name = f"{results['system']}_{results['recipe']}"
    versions = results.get("versions") or {}
    texts = {
        "preset": name,
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return [
        {
            **{column: results.get(column) for column in COLUMNS},
            **texts,
            **{"part": part, "metric": metric, "value": round(value, 5)},
        }
        for part, scores in results["scores"].items()
        for metric, value in scores.items()
    ]


def summary(runs: list[dict], command: str | None = None) -> list[dict]:
    """Returns rows of the mean and the spread over seeds, one a score.

    Args:
        runs: list of dict. Results of runs that differ in the seed alone.
        command: str or `None`. How to repeat all of them.

    Returns:
        List of dicts as `rows` has them: `value` is the mean, `spread` the standard deviation
        over the seeds (of a sample), `seed` all of them, and seconds are those of all runs.
    """
    summaries = []
    for seed_rows in zip(*map(rows, runs), strict=True):
        values = [row["value"] for row in seed_rows]
        seconds = {
            name: round(sum(row[name] for row in seed_rows), 1)
            for name in ("wall_seconds", "processor_seconds")
        }
        summaries.append(
            {
                **seed_rows[0],
                **seconds,
                "command": command,
                "seed": " ".join(str(row["seed"]) for row in seed_rows),
                "value": round(statistics.fmean(values), 5),
                "spread": round(statistics.stdev(values), 5) if len(values) > 1 else None,
            }
        )
    return summaries


def append_rows(path: PathLike, results: dict) -> None:
    """Writes a run into a CSV file of results, in place of what it holds of the same run.

    Args:
        path: str or `Path`. Made if it is not there.
        results: dict, as `train` returns it.
    """
    write_rows(path, rows(results))


def write_rows(path: PathLike, new: list[dict]) -> None:
    """Writes rows into a CSV file, in place of those of the same model, seeds and settings."""
    path = Path(path).expanduser()
    former = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            former = list(csv.DictReader(file))
    replaced = set(map(_run_of, new))
    kept = [row for row in former if _run_of(row) not in replaced]
    columns = dict.fromkeys([*COLUMNS, *(column for row in former for column in row)])
    with writing_file(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows([*kept, *new])


def write_json(path: Path, document: dict) -> None:
    """Writes a JSON file whole or not at all."""
    with writing_file(path) as file:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _run_of(row):
    return row["preset"], str(row["seed"]), settings_of(row["command"] or "")
