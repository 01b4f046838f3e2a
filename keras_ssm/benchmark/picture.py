"""The picture of a benchmark: time against length, a panel for each backend."""

from typing import NamedTuple

# At most five lines a panel: systems of the family, published forms, LSTM and attention.
LINES = {
    "S4D": {"color": "C0", "marker": "o"},
    "S5": {"color": "C2", "marker": "s"},
    "S4D as published": {"color": "C0", "marker": "o", "linestyle": "--", "fillstyle": "none"},
    "LSTM": {"color": "C1", "marker": "^"},
    "attention": {"color": "C3", "marker": "D"},
}
NAMES = {"MultiHeadAttention": "attention"}
BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
FEATURES = 128


class Curve(NamedTuple):
    """One line of a panel: the name of `LINES`, and milliseconds by length."""

    name: str
    points: dict


def curves(rows):
    """Returns the lines of each backend.

    Args:
        rows: list of dicts, as `run.run` returns them.

    Returns:
        Dict from backend to a list of `Curve`: training, milliseconds a sequence of 128 features.
    """
    panels = {}
    for row in rows:
        if row["section"] != "layers" or row["shape"][2] != FEATURES:
            continue
        if not (row["picked"] or row["method"] is None):
            continue
        batch, length, *_ = row["shape"]
        name = NAMES.get(row["layer"], row["layer"])
        lines = panels.setdefault(row["backend"], {})
        times = {name: row["training"], f"{name} as published": row.get("published")}
        for label, seconds in times.items():
            if label in LINES and seconds:
                lines.setdefault(label, {})[length] = 1e3 * seconds / batch
    return {
        backend: [Curve(name, lines[name]) for name in LINES if name in lines]
        for backend, lines in sorted(panels.items())
        if lines
    }


def draw(rows, path):
    """Draws the curves of `curves`.

    Args:
        rows: list of dicts, as `run.run` returns them.
        path: str or `Path` of the image.
    """
    from matplotlib.figure import Figure

    panels = curves(rows)
    figure = Figure(figsize=(4.4 * len(panels), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (backend, lines) in zip(axes, panels.items(), strict=True):
        panel(axis, lines, BACKENDS[backend])
    axes[0].set_ylabel("training pass of one layer, ms a sequence")
    figure.savefig(path, dpi=110)


def panel(axis, lines, title, room=0.62):
    """Draws lines into an axis, each with its name at its end; `room` is the share for names."""
    for line in lines:
        lengths, times = zip(*sorted(line.points.items()), strict=True)
        axis.plot(lengths, times, **LINES[line.name])
    axis.set(xscale="log", yscale="log", title=title, xlabel="steps in the sequence")
    lengths = sorted({length for line in lines for length in line.points})
    axis.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlim(lengths[0] / 1.3, lengths[-1] * (lengths[-1] / lengths[0]) ** room)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.grid(True, which="major", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    for line, height in zip(lines, _apart(axis, lines), strict=True):
        last = max(line.points)
        axis.annotate(
            line.name,
            (last, line.points[last]),
            xytext=(1.12 * last, height),
            color=LINES[line.name]["color"],
            va="center" if last == lengths[-1] else "top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def _apart(axis, lines, least=0.055):
    """Heights of the labels: those of the line ends, raised where one would cover another."""
    low, high = axis.get_ylim()
    label_heights = {}
    for line in sorted(lines, key=lambda line: line.points[max(line.points)]):
        end = max(line.points)
        heights = [h * (high / low) ** least for other, h in label_heights.values() if other == end]
        label_heights[line.name] = end, max([line.points[end], *heights])
    return [label_heights[line.name][1] for line in lines]
