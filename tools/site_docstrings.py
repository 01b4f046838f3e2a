"""An extension of griffe: sections that Google's style does not know, as plain lists and text."""

import re
import textwrap

import griffe

TITLES = "Call arguments|Returns|Yields|Example|Reference|References"
SECTION = re.compile(rf"^({TITLES}):\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", re.MULTILINE)
NAMED = re.compile(r"^([\w*][\w*, ]*): ", re.MULTILINE)


class PlainSections(griffe.Extension):
    """Writes "Call arguments:" and its like as Markdown, before the docstring is read."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = SECTION.sub(_plain, obj.docstring.value)


def _plain(section):
    title, body = section[1], textwrap.dedent(section[2]).strip("\n")
    if title == "Call arguments":
        body = NAMED.sub(_item, body).replace("\n    ", "\n  ")
    return f"**{title}:**\n\n{body}\n\n"


def _item(named):
    names = ", ".join(f"**`{name}`**" for name in named[1].split(", "))
    return f"- {names} – "  # noqa: RUF001
