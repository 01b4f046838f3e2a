"""Facts of a preset about its training: its row in the table, and entries of `preset.json`."""

from pathlib import Path

from keras_ssm import presets
from keras_ssm.training.recipe import Recipe


def row_of(recipe: Recipe, results: dict, weights_bytes: int | None = None) -> dict[str, str]:
    """Returns the row of a run in the table of presets, see `presets.results.COLUMNS`.

    Args:
        recipe: `Recipe`.
        results: dict, what `train` returned.
        weights_bytes: int or `None`. Size of the files of weights.
    """
    system, settings = results["system"], results["settings"]
    test = dict(results["scores"]["test"])
    metric = next(iter(test))
    entries = {
        **{key: results.get(key) for key in presets.results.COLUMNS},
        "name": recipe.preset_name(system, settings),
        "data": recipe.facts(system, settings).get("data", {}).get("name"),
        "baseline": "yes" if system in recipe.baselines else "no",
        "metric": metric,
        "value": _digits(test.pop(metric)),
        "validation": _digits(results["scores"].get("validation", {}).get(metric)),
        "other_scores": "; ".join(f"{name} {_digits(value)}" for name, value in test.items()),
        "weights_bytes": weights_bytes,
        "epochs": settings.get("epochs"),
    }
    return {key: "" if value is None else str(value) for key, value in entries.items()}


def facts_of(recipe: Recipe, settings: dict, rows: list[dict], part: object) -> dict:
    """Returns the entries of `preset.json` that come from a recipe and from runs.

    Args:
        recipe: `Recipe`.
        settings: dict. Those of the runs.
        rows: list of dicts. The rows of all seeds; the first one is the preset's.
        part: the test part, for the number of its examples.
    """
    row = rows[0]
    facts = recipe.facts(row["system"], settings)
    run = {"recipe": row["recipe"], "system": row["system"], "seed": int(row["seed"])}
    facts |= {"name": row["name"], "recipe": {**run, "settings": settings}}
    facts["scores"] = []
    for metric, values in presets.results.scores(rows).items():
        entry = {"metric": on_test(metric), "value": next(iter(values.values()))}
        count = recipe.count(metric, part)
        entry |= {} if count is None else {"count": count}
        entry |= {"seeds": values} if len(values) > 1 else {}
        facts["scores"].append({**entry, "command": row["command"]})
    time = ""
    if row["processor_seconds"] and row["wall_seconds"]:  # the first runs were not timed
        seconds = {name: float(row[f"{name}_seconds"]) for name in ("processor", "wall")}
        facts["seconds"] = seconds
        time = " in {processor:.0f} s of processor time ({wall:.0f} s by the clock)"
        time = time.format(**seconds)
    commit = f", commit {row['commit']}" if row["commit"] else ""
    facts["training"] = (
        f"Recipe `{row['recipe']}`: {row['steps']} steps{time} on {row['machine']}, "
        f"{row['backend']}, keras_ssm {row['version']}{commit}. The test part was read once, "
        f"after training. {facts.get('training', '')}"
    ).rstrip()
    return facts


def on_test(metric: str) -> str:
    """The name of a score of the test part in `preset.json`."""
    return f"{metric} on the test part"


def weights_size(directory: Path) -> int:
    """Bytes of the weights in a preset."""
    return sum(path.stat().st_size for path in Path(directory).glob("*.weights.h5"))


def _digits(value):
    """A number as the table writes it: six digits of it."""
    return None if value is None else f"{value:.6g}"
