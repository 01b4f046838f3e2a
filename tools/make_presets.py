"""Makes the presets of the package from runs of recipes, with pictures, cards and their table.

    python tools/make_presets.py runs --data DIR
    python tools/make_presets.py --redraw s4d_japanese_vowels --data DIR

`runs` are directories of runs that `keras-ssm train` left, or folders of such. The first seed of a
preset is what is published. Runs of another seed or of a baseline can come later; a second time
nothing changes. The tables of README.md and docs/zoo.md, and docs/gallery.md, are written too.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="runs, or folders of runs")
    parser.add_argument("--data", type=Path, help="folder of all data; without it tables alone")
    parser.add_argument("--presets", type=Path, default=ROOT / "presets", help="where they go")
    parser.add_argument("--redraw", nargs="+", default=[], metavar="NAME", help="presets, anew")
    parser.add_argument("--measure", action="store_true", help="time a streamed step anew")
    args = parser.parse_args()
    from keras_ssm import gallery

    try:
        names = []
        if args.runs:
            names += gallery.collect(args.runs, args.data, args.presets, args.measure)
        names += gallery.redraw(args.redraw, args.data, args.presets, args.measure)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    for name in names:
        print(args.presets / name)
    if args.presets == ROOT / "presets":
        write_pages()


def write_pages():
    """Writes the tables of README.md and docs/zoo.md, and docs/gallery.md."""
    from keras_ssm import gallery, presets

    tables = {"presets": presets.markdown_table(), "results": presets.markdown_results()}
    for page, kind in (("README.md", "presets"), ("docs/zoo.md", "results")):
        path = ROOT / page
        marks = f"<!-- {kind} -->", f"<!-- end of {kind} -->"
        pattern = re.compile(f"({marks[0]}\n).*?({marks[1]})", re.DOTALL)
        filled = f"\\1\n{tables[kind]}\n\\2"
        path.write_text(pattern.sub(filled, path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "gallery.md").write_text(gallery.page(ROOT), encoding="utf-8")


if __name__ == "__main__":
    main()
