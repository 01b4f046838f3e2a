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

    Where several seeds were trained, their mean follows: `(99.2 % is the mean of 3 seeds)`.
    """
    value, seeds = entry.get("value"), entry.get("seeds") or {}
    if value is None:
        return ""
    words = f"{_shown(value)} {entry.get('metric', '')}".rstrip()
    if len(seeds) > 1:
        words += f" ({_shown(sum(seeds.values()) / len(seeds))} is the mean of {len(seeds)} seeds)"
    return words


def _shown(value):
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:g}"


def markdown_table():
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
