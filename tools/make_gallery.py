"""Draws the pictures of all presets anew, and writes docs/gallery.md.

    make gallery DATA=DIR
    python tools/make_gallery.py --data DIR [NAME ...]
    python tools/make_gallery.py

Presets that a recipe made get their pictures and cards from its test part. Those of handwritten
digits, which come with scikit-learn, need no data. Without `--data` only these and the page are
made.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; default: all")
    parser.add_argument("--data", type=Path, help="folder of all data")
    args = parser.parse_args()
    from keras_ssm import gallery, presets

    known = {name: info for name, info in presets.list_presets().items() if info["handle"]}
    chosen = args.names or list(known)
    if unknown := sorted({*chosen} - {*known}):
        sys.exit(f"Error: presets are {', '.join(known)}. Received: {', '.join(unknown)}")
    for name in chosen:
        if known[name].get("data", {}).get("name") == "handwritten digits":
            print(draw_digits(name))
    if args.data is not None:
        made = [name for name in chosen if "recipe" in known[name]]
        try:
            for name in gallery.redraw(made, args.data, ROOT / "presets"):
                print(ROOT / "presets" / name)
        except ValueError as error:
            sys.exit(f"Error: {error}")
    page = ROOT / "docs" / "gallery.md"
    page.write_text(gallery.page(ROOT), encoding="utf-8")
    print(page)


def draw_digits(name):
    """Writes the picture of a preset of handwritten digits; returns its path."""
    from keras_ssm import datasets, plotting
    from keras_ssm.gallery.classes import chosen, softmax
    from keras_ssm.gallery.page import DRAWN
    from keras_ssm.gallery.png import png
    from keras_ssm.models import SSMClassifier

    model = SSMClassifier.from_preset(name)
    _, (x, y) = datasets.digits()
    found = model.predict(x, verbose=0).argmax(axis=-1)
    rows = chosen(y, found)
    stream = model.stream(len(rows))
    logits = np.concatenate([stream(pixel) for pixel in np.split(x[rows], 64, axis=1)], axis=1)
    figure = plotting.plot_answers(
        [x[row] for row in rows],
        [softmax(row) for row in logits],
        [f"{y[r]}" + ("" if found[r] == y[r] else f", taken for {found[r]}") for r in rows],
        [str(digit) for digit in range(10)],
        shape=(8, 8),
    )
    path = ROOT / "docs" / DRAWN / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))
    return path


if __name__ == "__main__":
    main()
