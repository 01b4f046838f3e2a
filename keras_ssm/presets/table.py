"""The tables of presets: of the README, of `keras-ssm list`, and of the page of all results."""

from keras_ssm.presets import results
from keras_ssm.presets.registry import list_presets

COLUMNS = ("preset", "system", "parameters", "data", "score", "beside it")
TASK_COLUMNS = ("data", "score", "presets", "beside them")
PAGE_COLUMNS = ("model", "parameters", "score", "seeds", "other scores", "processor seconds")


def rows(presets):
    """Cells of each preset, in the order of `COLUMNS`.

    Scores are those of `results.csv`, the mean of all seeds; of presets that are not in it, of
    directories of one's own, those of their `preset.json`.

    Args:
        presets: dict, as `list_presets` returns it.

    Returns:
        List of tuples of str.
    """
    table = results.read_results()
    lines = []
    for name, info in presets.items():
        of_preset = [row for row in table if row["name"] == name] if info.get("handle") else []
        scores = "; ".join(score(entry) for entry in info.get("scores", []))
        lines.append(
            (
                name,
                info.get("system", ""),
                f"{info.get('parameters', 0):,}",
                info.get("data", {}).get("name", ""),
                over_seeds(of_preset) if of_preset else scores,
                beside(table, of_preset) if of_preset else "",
            )
        )
    return lines


def over_seeds(rows: list[dict]) -> str:
    """The main score of a preset in words: `98.16 % accuracy (5 seeds, spread 0.30 %)`.

    Args:
        rows: list of dicts. Its rows in `results.csv`.
    """
    metric = rows[0]["metric"]
    value, spread = _mean(rows, metric)
    seeds = f"{len(rows)} seeds, spread {spread}" if spread else "one seed"
    return f"{value} {metric} ({seeds})"


def _mean(rows, metric):
    """The mean of a metric and its spread over the seeds, as they are printed."""
    mean, spread = results.mean_and_spread(list(results.scores(rows)[metric].values()))
    return precise(mean, metric), None if spread is None else precise(spread, metric, digits=2)


def beside(table, preset_rows):
    """The baselines of the same task, with the same metric."""
    metric, task = preset_rows[0]["metric"], results.task(preset_rows[0])
    baseline_rows = [r for r in table if r["baseline"] == "yes" and results.task(r) == task]
    scores = []
    for name in dict.fromkeys(row["name"] for row in baseline_rows):
        rows = [row for row in baseline_rows if row["name"] == name]
        if metric in results.scores(rows):
            scores.append(f"{rows[0]['system']} {_mean(rows, metric)[0]}")
    return ", ".join(scores)


def score(entry):
    """A score of `preset.json` in words: `99.4 % accuracy on 500 test digits`.

    What tells chance from progress follows in brackets: the 95 % interval, where the score is a
    share of `count` examples, and the mean, where several seeds were trained.
    """
    value, seeds, metric = entry.get("value"), entry.get("seeds") or {}, entry.get("metric", "")
    if value is None:
        return ""
    notes = []
    if bounds := interval(entry):
        notes.append(f"95 % interval {100 * bounds[0]:.1f} to {shown(bounds[1], 'accuracy')}")
    if len(seeds) > 1:
        mean = sum(seeds.values()) / len(seeds)
        notes.append(f"mean of {len(seeds)} seeds {shown(mean, metric)}")
    words = f"{shown(value, metric)} {metric}".rstrip()
    return f"{words} ({'; '.join(notes)})" if notes else words


def interval(entry):
    """The 95 % interval of a score, as far as the number of examples decides it.

    Args:
        entry: dict. A score of `preset.json`. Its `value` is the share, 0 to 1, of `count`
            examples.

    Returns:
        Two floats, the exact interval of Clopper and Pearson, or `None` without `count`.

    Example:
        ```python
        print(keras_ssm.presets.table.interval({"value": 0.992, "count": 500}))
        ```
    """
    if "value" not in entry or "count" not in entry:
        return None
    from scipy import special

    count = entry["count"]
    right = round(entry["value"] * count)
    low = special.betaincinv(right, count - right + 1, 0.025) if right else 0.0
    high = special.betaincinv(right + 1, count - right, 0.975) if right < count else 1.0
    return float(low), float(high)


def shown(value, metric=""):
    """A value as it is printed: a share as a percentage, any other number as it is."""
    return f"{100 * value:.1f} %" if results.is_share(metric) else f"{value:.5g}"


def precise(value, metric, digits=4):
    """A mean or a spread as it is printed: two decimals of a percentage, else some digits."""
    return f"{100 * value:.2f} %" if results.is_share(metric) else f"{value:.{digits}g}"


def costs(document: dict) -> list[str]:
    """Sentences on what a preset costs: bytes, a streamed step, and eight bits in place of 32.

    Args:
        document: dict. Its `preset.json`.
    """
    lines = []
    if size := document.get("size"):
        lines.append(f"Weights: {size:,} bytes.")
    if cost := document.get("streaming"):
        samples = cost.get("samples", 1)
        lines.append(
            f"A streamed step of {'one sample' if samples == 1 else f'{samples} samples'}: "
            f"{cost['microseconds']:,} microseconds of a processor "
            f"({cost['machine']}, {cost['backend']}). Its state has {cost['state_bytes']:,} bytes, "
            "however much was read."
        )
    elif size:
        lines.append("It needs the whole sequence, and does not stream.")
    if rounded := document.get("int8"):
        lines.append(_in_eight_bits(document, rounded))
    return lines


def _in_eight_bits(document, rounded):
    metric, value = rounded["metric"], rounded["value"]
    text = f'After `model.quantize("int8")`: {precise(value, metric)} {metric}'
    for entry in document.get("scores", []):
        if str(entry.get("metric")).startswith(f"{metric} on "):
            change = value - entry["value"]
            if results.is_share(metric):
                return f"{text}, {100 * change:+.2f} points."
            return f"{text}, {change:+.2g}."
    return f"{text}."


def markdown_table() -> str:
    """Returns the presets of the package as a Markdown table, with a final newline.

    Example:
        ```python
        print(keras_ssm.presets.markdown_table())
        ```
    """
    presets = {name: info for name, info in list_presets().items() if info["handle"]}
    return _markdown(COLUMNS, [(f"`{name}`", *rest) for name, *rest in rows(presets)])


def markdown_tasks() -> str:
    """Returns the data of the package's presets as a Markdown table: a row for all of one task.

    Example:
        ```python
        print(keras_ssm.presets.markdown_tasks())
        ```
    """
    table = results.read_results()
    lines = []
    for task in dict.fromkeys(map(results.task, table)):
        of_task = [row for row in table if results.task(row) == task and row["baseline"] != "yes"]
        if of_task:
            metric = of_task[0]["metric"]
            names = [f"`{rows[0]['name']}` {_mean(rows, metric)[0]}" for rows in _by_name(of_task)]
            lines.append((_title(table, of_task), metric, ", ".join(names), beside(table, of_task)))
    return _markdown(TASK_COLUMNS, lines)


def markdown_results() -> str:
    """Returns all results of the package as Markdown: a table for each task, baselines in it.

    Example:
        ```python
        print(keras_ssm.presets.markdown_results())
        ```
    """
    table = results.read_results()
    parts = []
    for task in dict.fromkeys(map(results.task, table)):
        of_task = [row for row in table if results.task(row) == task]
        lines = [_page_row(rows) for rows in _by_name(of_task)]
        parts.append(f"### {_title(table, of_task)}\n\n{_markdown(PAGE_COLUMNS, lines)}")
    return "\n".join(parts)


def _title(table, of_task):
    """The data of a task, and its recipe where another recipe has the same data."""
    data, recipe = of_task[0]["data"], of_task[0]["recipe"]
    is_shared = any(row["data"] == data and row["recipe"] != recipe for row in table)
    return f"{data}: `{recipe}`" if is_shared else data


def _by_name(table):
    names = dict.fromkeys(row["name"] for row in table)
    return [[row for row in table if row["name"] == name] for name in names]


def _page_row(rows):
    row = rows[0]
    means = {metric: _mean(rows, metric) for metric in results.scores(rows)}
    value, spread = means.pop(row["metric"])
    seconds = [float(row["processor_seconds"]) for row in rows if row["processor_seconds"]]
    return (
        row["system"] if row["baseline"] == "yes" else f"`{row['name']}`",
        f"{int(row['parameters']):,}",
        f"{value} {row['metric']}" + (f", spread {spread}" if spread else ""),
        " ".join(row["seed"] for row in rows),
        "; ".join(f"{metric} {value}" for metric, (value, _) in means.items()),
        f"{sum(seconds) / len(seconds):,.0f}, {row['backend']}" if seconds else row["backend"],
    )


def _markdown(columns, lines):
    table = [columns, ["---"] * len(columns), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)
