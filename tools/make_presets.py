"""Makes the presets of the package from runs of recipes, with pictures, cards and their table.

    python tools/make_presets.py runs --data DIR
    python tools/make_presets.py --redraw s4d_japanese_vowels s4d_digits --data DIR
    python tools/make_presets.py --float16 s4d_tinyshakespeare --data DIR
    make gallery DATA=DIR  # redraws all

`runs` are directories of runs that `keras-ssm train` left, or folders of such. The first seed of a
preset is what is published. Runs of another seed or of a baseline can come later; a second time
nothing changes. `--float16` halves the weights of presets whose score does not move by that. All
cards, the tables of README.md and docs/zoo.md, and docs/gallery.md are made anew.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="runs, or folders of runs")
    parser.add_argument("--data", type=Path, help="folder of all data")
    parser.add_argument("--presets", type=Path, default=ROOT / "presets", help="where they go")
    parser.add_argument("--redraw", nargs="+", default=[], metavar="NAME", help="presets, anew")
    parser.add_argument("--float16", nargs="+", default=[], metavar="NAME", help="presets to halve")
    parser.add_argument("--redraw-all", action="store_true", help="or those without data")
    parser.add_argument("--measure", action="store_true", help="time a streamed step anew")
    args = parser.parse_args()
    from keras_ssm import gallery, presets, recipes

    made = {
        file.parent.name: presets.read(file.parent) for file in args.presets.glob("*/preset.json")
    }
    redrawn = args.redraw or sorted(made) * args.redraw_all
    if args.redraw_all and args.data is None:
        origins = {name: made[name].get("recipe", {}).get("recipe") for name in redrawn}
        redrawn = [name for name in redrawn if not recipes.get(origins[name]).needs_data]
    try:
        names = []
        if args.runs:
            names += gallery.collect(args.runs, args.data, args.presets, args.measure)
        names += gallery.redraw(redrawn, args.data, args.presets, args.measure)
        for name in args.float16:
            before, after = gallery.halve(name, args.data, args.presets)
            print(f"{name} in float16: {after:.6g} after {before:.6g}")
    except ValueError as error:
        sys.exit(f"Error: {error}")
    for name in names:
        print(args.presets / name)
    write_cards(args.presets)
    if args.presets == ROOT / "presets":
        write_pages()


def write_cards(folder):
    """Writes the cards of all presets in a folder."""
    from keras_ssm import hub, presets

    for file in sorted(folder.glob(f"*/{presets.PRESET_FILE}")):
        card = hub.card(file.parent)
        (file.parent / presets.CARD_FILE).write_text(card, encoding="utf-8")


def write_pages():
    """Writes the tables of README.md and docs/zoo.md, and docs/gallery.md."""
    from keras_ssm import gallery, presets

    tables = {"presets": presets.markdown_tasks(), "results": presets.markdown_results()}
    for page, kind in (("README.md", "presets"), ("docs/zoo.md", "results")):
        path = ROOT / page
        marks = f"<!-- {kind} -->", f"<!-- end of {kind} -->"
        pattern = re.compile(f"({marks[0]}\n).*?({marks[1]})", re.DOTALL)
        filled = f"\\1\n{tables[kind]}\n\\2"
        path.write_text(pattern.sub(filled, path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "gallery.md").write_text(gallery.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
