"""Writes the table by which `method="auto"` chooses, from the measurements of the repository.

    python tools/method_table.py

It takes the rows of `docs/performance/results` of layers measured by more than one method,
on a CPU (`keras-ssm benchmark --layers --method fft`) or on a card (`tools/gpu_table.py`,
as it calls layers from Python: `eager`, and `jit` on JAX). Of two the newer file counts.
"""

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "keras_ssm/layers/methods.csv"
COLUMNS = ["device", "backend", "layer", "length", "method", "speedup", "source"]


def measurements(folder=ROOT / "docs/performance/results"):
    """Rows of the table: a layer by one method, beside its published form in the same run."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        rows = list(csv.DictReader(lines))
        for *key, speedup in (_of_cards if rows and "card" in rows[0] else _of_cpu)(rows):
            found[tuple(key)] = f"{speedup:.3g}", path.name
    methods = {}
    for *key, method in found:
        methods.setdefault(tuple(key), set()).add(method)
    compared = sorted(key for key in found if len(methods[key[:4]]) > 1)
    return [dict(zip(COLUMNS, (*key, *found[key]), strict=True)) for key in compared]


def _of_cpu(rows):
    for row in rows:
        measured = row.get("section") == "layers" and row.get("method") and row.get("published")
        if measured and row["method"] != "recurrent" and row["features"] == "128":
            key = "cpu", row["backend"], row["layer"], int(row["length"]), row["method"]
            yield *key, float(row["published"]) / float(row["training"])


def _of_cards(rows):
    """Layers by another method than the default have it behind their name, `S4 (fft)`."""
    rows = [row for row in rows if row["form"] in ("eager", "jit") and row["dtype"] == "float32"]
    training = {(row["layer"], row["length"]): float(row["training"]) for row in rows}
    for row in rows:
        layer, _, method = row["layer"].partition(" (")
        published = training.get((f"{layer} as published", row["length"]))
        if published is not None:
            key = row["card"], row["backend"], layer, int(row["length"])
            yield *key, method.rstrip(")") or "chunked", published / float(row["training"])


def main():
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(measurements())


if __name__ == "__main__":
    main()
