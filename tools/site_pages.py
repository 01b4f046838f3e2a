"""A hook of mkdocs: files outside of docs/ that pages link to become pages of the site.

On GitHub `[how to add](../CONTRIBUTING.md)` opens the file. On the site it opens the page
`project/CONTRIBUTING.md`, and an example in Python a page with its code. Pictures, such as
those of the cards of presets, are copied as they are.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "project"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[)#])")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
IMAGES = (".png", ".svg")
LANGUAGES = {".py": "python", ".csv": "text", ".toml": "toml"}
# What a browser would ask for by itself.
REQUEST = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\"> ]+)"
)


def on_files(files, config):
    """Adds the pages of outside files: those of the navigation, and whatever is linked."""
    waiting = [_path(uri) for uri in _uris(config["nav"]) if uri.startswith(f"{FOLDER}/")]
    for file in files.documentation_pages():
        waiting += _outside(file.content_string, f"docs/{file.src_uri}")
    added = set()
    while waiting:
        path = waiting.pop()
        if path in added:
            continue
        added.add(path)
        if path.endswith(IMAGES):
            files.append(File.generated(config, _uri(path), abs_src_path=str(ROOT / path)))
            continue
        text = _content(path)
        waiting += _outside(text, path)
        files.append(File.generated(config, _uri(path), content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Lets links to outside files lead to their pages."""
    uri = page.file.src_uri
    path = _path(uri) if uri.startswith(f"{FOLDER}/") else f"docs/{uri}"
    return _outside_fences(
        markdown, lambda text: LINK.sub(lambda link: _on_site(link[1], path, uri), text)
    )


def on_post_page(output, page, **_):
    """Refuses a page that would ask another server for something when it is read."""
    asked = REQUEST.findall(output)
    if asked:
        raise PluginError(f"{page.file.src_uri} must ask no other server. Received: {asked}")
    return output


def _outside(text, path):
    """The files outside of docs/ that a text at this path links to."""
    found = [_repository(link, path) for link in LINK.findall(FENCE.sub("", text))]
    return [target for target in found if not target.startswith("docs/") and _is_file(target)]


def _on_site(link, path, uri):
    target = _repository(link, path)
    if target.startswith("docs/"):
        there = target.removeprefix("docs/")
    elif _is_file(target):
        there = _uri(target)
    else:
        return link  # mkdocs says that it leads nowhere
    return posixpath.relpath(there, posixpath.dirname(uri) or ".")


def _repository(link, path):
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _is_file(path):
    return not path.startswith("..") and os.path.isfile(ROOT / path)


def _uri(path):
    return f"{FOLDER}/{path}" if path.endswith((".md", *IMAGES)) else f"{FOLDER}/{path}.md"


def _path(uri):
    path = uri.removeprefix(f"{FOLDER}/")
    return path if _is_file(path) else path.removesuffix(".md")


def _content(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n```{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}```\n"


def _outside_fences(text, change):
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _uris(nav):
    for entry in nav:
        for value in entry.values():
            yield from _uris(value) if isinstance(value, list) else [value]
