"""Puts what the experiments found on their page: `python tools/draw_experiments.py [CSV]...`.

Copies the `noise.csv` and `rates.csv` that are named to docs/experiments, draws the pictures of all
that are there into docs/images, and writes their tables into docs/experiments.md.
"""

import argparse
import re
import shutil
import statistics
from pathlib import Path

import numpy as np

from keras_ssm import experiments, initializers
from keras_ssm.experiments.pictures import LABELS
from keras_ssm.experiments.tables import read_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, RESULTS, IMAGES = DOCS / "experiments.md", DOCS / "experiments", DOCS / "images"
STATE_DIM = 32
SHOWN_RATES = (0.5, 0.7, 0.9, 1.0, 1.2, 1.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, metavar="CSV")
    parser.add_argument("--untrained", action="store_true", help="Draw untrained layers anew.")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for path in given.results:
        shutil.copyfile(path, RESULTS / path.name)
    if given.untrained or not (IMAGES / "heard_waves.png").is_file():
        save(untrained(), "heard_waves.png")
    if (RESULTS / "noise.csv").is_file():
        rows = read_table(RESULTS / "noise.csv")
        save(experiments.plot_ptd_noise(rows), "ptd_noise.png")
        write("noise", noise_table(rows), "accuracy over frequency and amplitude", "ptd_noise.png")
    if (RESULTS / "rates.csv").is_file():
        rows = read_table(RESULTS / "rates.csv")
        save(experiments.plot_playback_rate(rows), "playback_rate.png")
        write("rates", rates_table(rows), "accuracy over the rate", "playback_rate.png")


def save(figure, name):
    figure.savefig(IMAGES / name, dpi=100, bbox_inches="tight")
    print(IMAGES / name)


def untrained():
    """Untrained layers, at frequencies that hit every pole of S4D-LegS."""
    poles = -initializers.nplr("legs", STATE_DIM).A.imag
    near = np.concatenate([poles * factor for factor in (0.996, 1, 1.004)])
    waves = np.unique(np.concatenate([np.geomspace(1, 800, 120), near[near > 1]]))
    figure = experiments.plot_heard_waves(waves, experiments.heard_waves(waves))
    (axis,) = figure.axes
    axis.axvline(poles.max(), color="0.6", linestyle=":", linewidth=0.9, zorder=0)
    axis.text(poles.max() * 1.04, 2.2, "N²/π", color="0.4")
    return figure


def noise_table(rows):
    """Systems down, forms across: without noise, and at the largest spike."""
    found = {(row["form"], row["system"]): row for row in experiments.summary(rows)}
    forms = [form for form in experiments.FORMS if any(key[0] == form for key in found)]
    systems = [system for system in LABELS if any(key[1] == system for key in found)]
    head = [f"{form}, {which}" for form in forms for which in ("without noise", "with noise")]
    lines = ["| system | " + " | ".join(head) + " |", "|---" * (1 + len(head)) + "|"]
    for system in systems:
        cells = []
        for form in forms:
            row = found.get((form, system))
            cells += [percent(*row[name]) if row else "" for name in ("clean", "noisy")]
        lines.append(f"| {LABELS[system]} | " + " | ".join(cells) + " |")
    seeds = sorted({row["seeds"] for row in found.values()})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else seeds[0]
    return [
        *lines,
        "",
        f"Accuracy on all test images in per cent; mean and spread, seeds: {count}.",
    ]


def percent(mean, spread):
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def rates_table(rows):
    """Systems and ways of reading down, rates across."""
    cells = {}
    for row in rows:
        key = row["system"], row["reading"], row["rate"]
        cells.setdefault(key, []).append(row["accuracy"])
    rates = [rate for rate in SHOWN_RATES if any(key[2] == rate for key in cells)]
    lines = ["| system | read | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|---" * (2 + len(rates)) + "|")
    for system, reading in dict.fromkeys(key[:2] for key in cells):
        found = (cells.get((system, reading, rate)) for rate in rates)
        found = (f"{100 * statistics.fmean(c):.1f}" if c else "" for c in found)
        lines.append(f"| {LABELS.get(system, system)} | {reading} | " + " | ".join(found) + " |")
    counts = {}
    for row in rows:
        counts.setdefault(row["system"], set()).add(row["source"])
    runs = ", ".join(f"{LABELS.get(s, s)} {len(found)}" for s, found in counts.items())
    return [*lines, "", f"Accuracy in per cent, mean over the runs: {runs}."]


def write(name, table, alt, picture):
    """Puts a table and a picture between the marks of that name."""
    text = PAGE.read_text(encoding="utf-8")
    body = "\n".join([*table, "", f"![{alt[0].upper() + alt[1:]}](images/{picture})"])
    marks = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    found, count = re.subn(marks, lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"'{PAGE}' must have marks once. Received: {count} of {name}")
    PAGE.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
