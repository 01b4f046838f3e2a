"""The parts of a model card on scores, calibration and costs, with their pictures."""

from keras_ssm.presets import results, table

# Pictures with a place of their own; all others stand beside the scores.
_PLACED = ("samples", "learning")
_ON_TEST = " on the test part"


def pictures(document: dict, names: tuple | None = None) -> str:
    """The pictures of these names, without their endings, as Markdown; `None`: all others."""
    lines = []
    for entry in document.get("pictures", []):
        name = entry["file"].rpartition(".")[0]
        if name in names if names else name not in _PLACED:
            lines.append(f"![{entry['alt']}]({entry['file']})\n\n*{entry['alt']}*")
    return "\n\n".join(lines)


def scores(document: dict, name: str) -> str:
    """A table of the preset and its baselines, each score with its seeds, and pictures."""
    parts = [_table(document, name), _lines(document), pictures(document)]
    return "\n\n".join(filter(None, parts)) or "None was recorded."


def _table(document, name):
    """The main score beside those of the baselines."""
    entries = [entry for entry in document.get("scores", []) if "value" in entry]
    if not entries or not document.get("baselines"):
        return ""
    metric = str(entries[0].get("metric", "score")).removesuffix(_ON_TEST)
    own = {
        "system": f"**{name}**",
        "seeds": entries[0].get("seeds") or {"": entries[0]["value"]},
        "parameters": document.get("parameters"),
        "processor_seconds": document.get("seconds", {}).get("processor"),
    }
    lines = [
        f"| model | {metric}, mean | spread | seeds | parameters | processor seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in (own, *document["baselines"]):
        seeds = list((row.get("seeds") or {"": row.get("value")}).values())
        mean, spread = results.mean_and_spread(seeds)
        cells = [
            row["system"],
            table.precise(mean, metric),
            "" if spread is None else table.precise(spread, metric, digits=2),
            str(len(seeds)),
            *(_number(row.get(key)) for key in ("parameters", "processor_seconds")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Baselines are trained by the same recipe and scored on the same test part."]
    return "\n".join(lines)


def _number(value):
    return "" if value is None else f"{value:,.0f}"


def _lines(document):
    lines = []
    for entry in document.get("scores", []):
        line = f"- {table.score(entry)}"
        if seeds := entry.get("seeds"):
            metric = entry.get("metric", "")
            shown = (f"{table.shown(v, metric)} (seed {s})" for s, v in seeds.items())
            line += f"; {', '.join(shown)}; the first is the one that is published"
        if command := entry.get("command"):
            line += f": `{command}`"
        lines.append(line)
    return "\n".join(lines)


def calibration(document: dict) -> str:
    """How far the probabilities can be believed."""
    measured = document.get("calibration")
    if not measured:
        return ""
    return (
        f"The expected calibration error is {100 * measured['ece']:.1f} % on the "
        f"{measured['part']} part, in {measured['bins']} bins. By so much, on average, the "
        "probability of an answer is away from how often such answers are right."
    )


def costs(document: dict) -> str:
    """Bytes and microseconds, and what eight bits cost."""
    return "\n".join(f"- {line}" for line in table.costs(document))
