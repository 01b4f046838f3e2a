"""Tables of a benchmark."""

from rich.table import Table

from keras_ssm.benchmark.run import BLOCKS, GATED, GRIDS, KERNELS, OTHERS, SECTIONS, SYSTEMS
from keras_ssm.benchmark.targets import verdicts

MEBIBYTE = 2**20
TITLES = {
    "layers": "Time: ms; streamed: microseconds for one step of batch 1",
    "memory": "Peak memory: MiB; working: the layer's own, in activations",
    "stream": "One streamed step of a stack, batch 1: microseconds",
    "fit": "Training steps a second of a classifier",
    "long": "A forward pass over a million steps",
    "selective": "Time of Mamba, Mamba-2 and DeltaNet: ms",
    "selective_memory": "Peak memory of Mamba, Mamba-2 and DeltaNet",
    "decode": "Text, token by token",
    "targets": "Targets",
}


def sheets(rows):
    """Returns every table of a benchmark as plain text.

    Args:
        rows: list of dicts, as `run` returns them.

    Returns:
        Dict from section to `(columns, lines)`, lists of str and lists of lists of str; the
        sections that were measured, and `"targets"`.
    """
    makers = {
        "layers": _layers,
        "memory": _memory,
        "stream": _stream,
        "fit": _fit,
        "long": _long,
        "selective": _selective,
        "selective_memory": _selective_memory,
        "decode": _decode,
    }
    tables = {}
    for section, maker in makers.items():
        own_rows = [row for row in rows if row["section"] == section]
        if own_rows:
            cells = [
                {"backend": row["backend"], "layer": row["layer"], **maker(row)} for row in own_rows
            ]
            tables[section] = list(cells[0]), [list(line.values()) for line in cells]
    compared = [
        [v.target, v.backend, f"{v.limit:g}", f"{v.seen:.2f}", v.where, "yes" if v.met else "no"]
        for v in verdicts(rows)
    ]
    if compared:
        columns = ["target", "backend", "limit", "worst seen", "of", "met"]
        tables["targets"] = columns, compared
    return tables


def tables(rows):
    """Returns a `rich` table for each sheet."""
    result = []
    for section, (columns, lines) in sheets(rows).items():
        table = Table(*columns, title=TITLES[section])
        for line in lines:
            table.add_row(*line)
        result.append(table)
    return result


def markdown(machines):
    """Returns the page of a benchmark.

    Args:
        machines: list of lists of `records.Run`, as `records.by_machine` gives them.

    Returns:
        str. For each machine its versions, the commands, and a table for each section.
    """
    parts = ["# All measurements", *(part for runs in machines for part in _parts(runs))]
    return "\n\n".join(parts) + "\n"


def _parts(runs):
    machine = runs[-1].machine
    cores = f"{machine['cores']} cores" if machine["cores"] != 1 else "1 core"
    yield f"## {machine['processor']}, {cores}"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    cards = "".join(f"{name}; " for name in machine.get("gpus", ()))
    yield (
        f"{cards}{machine['memory'] / 2**30:.0f} GiB, {machine['system']}; "
        f"Python {machine['python']}, {versions}."
    )
    rows = sorted((row for run in runs for row in run.rows), key=_order)
    rates = {row["backend"]: row["matmul_rate"] for row in rows if row["section"] == "layers"}
    if rates:
        listed = ", ".join(f"{1e-9 * rate:.0f} on {backend}" for backend, rate in rates.items())
        yield f"A 2048 x 2048 product reaches, in GFLOP/s: {listed}."
    for section, (columns, lines) in sheets(rows).items():
        yield f"### {TITLES[section]}"
        for run in runs:
            if any(row["section"] == section for row in run.rows):
                yield f"`{run.command}`, {run.date}, {run.seconds:.0f} s in all"
        cells = [columns, ["---"] * len(columns), *lines]
        yield "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _order(row):
    """By section, backend, length, layer: the same page whatever was measured first."""
    names = [*SYSTEMS, *KERNELS, *GATED, *BLOCKS, *GRIDS, *OTHERS]
    shape = row.get("shape") or [0, 0, 0, 0]
    place = names.index(row["layer"]) if row["layer"] in names else len(names)
    return list(SECTIONS).index(row["section"]), row["backend"], shape[1], -shape[0], place


def _method(row):
    if row["method"] is None:
        return ""
    return f"{row['method']} (auto)" if row["picked"] else row["method"]


def _shape(row):
    return ", ".join(map(str, row["shape"]))


def _layers(row):
    streamed, published = row["streamed"], row.get("published")
    return {
        "method": _method(row),
        "batch, length, features, state": _shape(row),
        "forward": f"{1e3 * row['forward']:.1f}",
        "training": f"{1e3 * row['training']:.1f}",
        "of the matmul rate": f"{row['fraction']:.0%}",
        "streamed": "" if streamed is None else f"{1e6 * streamed:.0f}",
        "published training": "" if published is None else f"{1e3 * published:.1f}",
        "published / ours": "" if published is None else f"{row['ratio']:.2f}",
    }


def _memory(row):
    forward = row["forward_memory"]
    return {
        "method": _method(row),
        "batch, length, features, state": _shape(row),
        "forward": "" if forward is None else f"{forward / MEBIBYTE:.0f}",
        "training": f"{row['training_memory'] / MEBIBYTE:.0f}",
        "working": f"{row['working']:.1f}",
    }


def _stream(row):
    return {
        "layers": str(row["layers"]),
        "features": str(row["features"]),
        "form": f"{row['form']} ({row['compiled']})",
        "ours": f"{1e6 * row['step']:.1f}",
        "LSTM": f"{1e6 * row['lstm']:.1f}",
        "ours / LSTM": f"{row['ratio']:.2f}",
    }


def _fit(row):
    return {
        "batch, length, width, blocks, state": ", ".join(map(str, row["size"])),
        "ours": f"{row['rate']:.2f}",
        "published": f"{row['published_rate']:.2f}",
        "ours / published": f"{row['ratio']:.2f}",
    }


def _long(row):
    return {
        "batch, length, features, state": _shape(row),
        "method": row["method"],
        "seconds": f"{row['forward']:.1f}",
        "pass, MiB": f"{row['forward_memory'] / MEBIBYTE:.0f}",
        "process, MiB": f"{row['process_memory'] / MEBIBYTE:.0f}",
    }


def _selective(row):
    ratio, seen = row.get("ratio"), row.get("measured_to")
    return {
        "of": row["form"],
        "form": row["method"] + ("" if seen is None else f" (measured to {seen})"),
        "batch, length, inner features, state": _shape(row),
        "forward": f"{1e3 * row['forward']:.1f}",
        "training": f"{1e3 * row['training']:.1f}",
        "form / ours": "" if ratio is None else f"{ratio:.2f}",
    }


def _selective_memory(row):
    return {
        "of": row["form"],
        "form": row["method"],
        "batch, length, inner features, state": _shape(row),
        "forward, MiB": f"{row['forward_memory'] / MEBIBYTE:.0f}",
        "training, MiB": f"{row['training_memory'] / MEBIBYTE:.0f}",
        "training, activations": f"{row['activations']:.1f}",
    }


def _decode(row):
    return {
        "form": row["form"],
        "tokens read": f"{row['context']:,}",
        "blocks, width, vocabulary": ", ".join(
            f"{row[key]:,}" for key in ("blocks", "width", "vocabulary")
        ),
        "ms a token": f"{1e3 * row['step']:.2f}",
        "tokens a second": f"{1 / row['step']:.1f}",
    }
