"""The page of the gallery: a picture of each preset with a sentence, its score, and its card."""

import re

from keras_ssm import presets
from keras_ssm.presets import results
from keras_ssm.presets.table import beside, over_seeds

_HEAD = """\
# Gallery

What each preset of the package does, on samples that it has not learned from.
`make gallery DATA=DIR` draws it all anew. [The zoo](zoo.md) has every score, and
`keras-ssm demo --web` reads what you draw yourself.
"""


def page() -> str:
    """Returns the gallery as Markdown, a page for `docs` of a source tree.

    Example:
        ```python
        from keras_ssm.gallery import page

        print(page()[:9])  # "# Gallery"
        ```
    """
    info_of = {name: info for name, info in presets.list_presets().items() if info["handle"]}
    table = results.read_results()
    order = sorted(info_of, key=lambda name: (_data(info_of[name]) == "handwritten digits", name))
    return "\n".join([_HEAD, *(_entry(name, info_of[name], table) for name in order)])


def _entry(name, info, table):
    rows = [row for row in table if row["name"] == name]
    score = over_seeds(rows) if rows else ""
    others = beside(table, rows) if rows else ""
    facts = [f"{_data(info)}: **{score}**" if score else _data(info)]
    facts += [f"beside it {others}"] if others else []
    facts += [f"{info.get('parameters', 0):,} parameters of {info.get('system')}"]
    lines = [
        f"## {name}",
        "",
        _first_sentence(info.get("description", "")),
        "",
        *_picture(name, info),
        f"{'; '.join(facts)}. [Card](../presets/{name}/README.md)",
        "",
    ]
    return "\n".join(lines)


def _picture(name, info):
    """The lines of its first picture; none without."""
    for picture in info.get("pictures", [])[:1]:
        return [f"![{picture['alt']}](../presets/{name}/{picture['file']})", ""]
    return []


def _data(info):
    return info.get("data", {}).get("name", "")


def _first_sentence(text):
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
