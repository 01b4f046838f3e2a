"""The table and the picture of a benchmark."""

from rich.table import Table


def table(rows):
    """Returns a `rich` table of the rows of `run`."""
    columns = ["backend", "layer", "batch, length, features, state", "forward", "training step"]
    columns += ["memory", "published step", "published / ours"]
    result = Table(*columns, caption="times in ms, memory in MiB; one run, in turn")
    for row in rows:
        memory = row["memory"]
        result.add_row(
            row["backend"],
            row["layer"],
            ", ".join(map(str, row["shape"])),
            f"{1e3 * row['forward']:.1f}",
            f"{1e3 * row['step']:.1f}",
            "" if memory is None else f"{memory / 2**20:.0f}",
            f"{1e3 * row['published']:.1f}" if "published" in row else "",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
        )
    return result


def picture(rows, path):
    """Draws time and memory of a training step against length, one curve a layer.

    Args:
        rows: list of dicts, as `run` returns them.
        path: str or `Path` of the image.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = [("step", "training step, microseconds a sample", 1e6)]
    if any(row["memory"] is not None for row in rows):
        panels.append(("memory", "peak memory, bytes a number", 1.0))
    for axes, (key, label, unit) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        curves = sorted({(row["backend"], row["layer"]) for row in rows})
        for backend, layer in curves:
            points = [
                (row["shape"][1], unit * row[key] / _count(row, key))
                for row in rows
                if (row["backend"], row["layer"]) == (backend, layer) and row[key] is not None
            ]
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=f"{layer} ({backend})")
        axes.set(xscale="log", yscale="log", xlabel="length", ylabel=label)
        axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=120)


def _count(row, key):
    batch, length, features, _ = row["shape"]
    return batch * length * (features if key == "memory" else 1)
