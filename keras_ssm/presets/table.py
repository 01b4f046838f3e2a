"""The table of presets as the README and `keras-ssm list` print it."""

from keras_ssm.presets.registry import list_presets

COLUMNS = ("preset", "system", "parameters", "data", "score")


def rows(presets):
    """Cells of each preset, in the order of `COLUMNS`.

    Args:
        presets: dict, as `list_presets` returns it.

    Returns:
        List of tuples of str.
    """
    return [
        (
            name,
            info.get("system", ""),
            f"{info.get('parameters', 0):,}",
            info.get("data", {}).get("name", ""),
            "; ".join(score(entry) for entry in info.get("scores", [])),
        )
        for name, info in presets.items()
    ]


def score(entry):
    """A score of `preset.json` in words: `99.4 % accuracy on 500 test digits`.

    What tells chance from progress follows in brackets: the 95 % interval, where the score is a
    share of `count` examples, and the mean, where several seeds were trained.
    """
    value, seeds = entry.get("value"), entry.get("seeds") or {}
    if value is None:
        return ""
    notes = []
    if bounds := interval(entry):
        notes.append(f"95 % interval {100 * bounds[0]:.1f} to {shown(bounds[1])}")
    if len(seeds) > 1:
        mean = sum(seeds.values()) / len(seeds)
        notes.append(f"mean of {len(seeds)} seeds {shown(mean)}")
    words = f"{shown(value)} {entry.get('metric', '')}".rstrip()
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


def shown(value):
    """A share as a percentage, any other number as it is."""
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:g}"


def markdown_table() -> str:
    """Returns the presets of the package as a Markdown table, with a final newline.

    Example:
        ```python
        print(keras_ssm.presets.markdown_table())
        ```
    """
    presets = {name: info for name, info in list_presets().items() if info["handle"]}
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [[f"`{name}`", *rest] for name, *rest in rows(presets)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
