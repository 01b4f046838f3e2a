"""Pictures and tables of the pages, from the results: `python tools/draw_results.py`.

It reads docs/performance/results and writes docs/images/time.png (of the README), the picture, the
tables and the list of all measurements of docs/performance.
"""

import csv
import re
from pathlib import Path

from keras_ssm.benchmark import picture, records, report
from keras_ssm.benchmark.run import OTHERS, SYSTEMS

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "performance"
PAGE = DOCS / "performance.md"
LENGTHS = (1024, 4096, 16384)
GPU_NAMES = {"cuDNN LSTM": "LSTM", "attention, 8 heads": "attention"}


def main():
    machines = records.by_machine(records.read_all(FOLDER))
    rows = records.all_rows(machines[0])
    (FOLDER / "benchmark.md").write_text(report.markdown(machines), encoding="utf-8")
    picture.draw(rows, FOLDER / "benchmark.png")
    draw_front(DOCS / "images" / "time.png")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


def with_tables(text, rows):
    """The page with the tables of the rows, each between two comments that name its backend."""
    for backend in picture.BACKENDS:
        marks = f"<!-- table of {backend} -->", "<!-- end of table -->"
        pattern = re.compile(f"({re.escape(marks[0])}\n).*?({re.escape(marks[1])})", re.DOTALL)
        lines = "\n".join(table([row for row in rows if row["backend"] == backend]))
        text = pattern.sub(lambda found, lines=lines: f"{found[1]}\n{lines}\n\n{found[2]}", text)
    return text


def table(rows):
    """Yields the lines of one backend's table: training, and memory at the longest length."""
    titles = [f"{length:,} steps" for length in LENGTHS]
    yield f"| layer | {' | '.join(titles)} | memory at {LENGTHS[-1]:,} |"
    yield "|---" * (len(LENGTHS) + 2) + "|"
    for name in [*SYSTEMS, *OTHERS]:
        cells = [_time(_found(rows, "layers", name, length)) for length in LENGTHS]
        if any(cells):  # it was measured
            yield f"| `{name}` | {' | '.join(cells)} | {_memory(rows, name)} |"


def _found(rows, section, name, length):
    for row in rows:
        if row["section"] == section and row["layer"] == name:
            usual = row["picked"] or row["method"] is None
            if usual and row["shape"][1:3] == [length, picture.FEATURES]:
                return row
    return None


def _time(row):
    if row is None:
        return ""
    milliseconds = 1e3 * row["training"]
    text = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"
    return text + (f" ({row['ratio']:.1f}x)" if row.get("ratio") else "")


def _memory(rows, name):
    row = _found(rows, "memory", name, LENGTHS[-1])
    return "" if row is None else f"{row['training_memory'] / 2**20:,.0f} MiB"


def gpu_curves(path):
    """The lines of `picture.LINES` in a table of `gpu_table.py`: calls one by one, not graphs."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found = {}
    for row in rows:
        name = GPU_NAMES.get(row["layer"], row["layer"])
        usual = row["dtype"] == ("bfloat16" if name == "attention" else "float32")
        if name in picture.LINES and row["form"] == "eager" and usual:
            milliseconds = float(row["training"]) / int(row["batch"])
            found.setdefault(name, {})[int(row["length"])] = milliseconds
    return [picture.Curve(name, found[name]) for name in picture.LINES if name in found]


def draw_front(path):
    """The picture of the README: PyTorch on a GPU."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axis = figure.subplots()
    lines = gpu_curves(FOLDER / "results" / "h100-torch.csv")
    title = "Training pass of one layer, 512 features, NVIDIA H100, PyTorch"
    picture.panel(axis, lines, title, room=0.36)
    axis.set_ylabel("milliseconds a sequence")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
