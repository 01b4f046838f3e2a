"""The promises of the project beside the measurements."""

from typing import NamedTuple

from keras_ssm.benchmark.run import GRIDS, SYSTEMS

DIAGONAL = [name for name in SYSTEMS if name not in ("S4", "SpaceTime")]
GIBIBYTE = 2**30

# Training over the published formulation on the same backend, at least, by length.
LENGTHS = (1024, 4096, 16384)
PUBLISHED = {
    ("S4D", "DSS", "S4PTD"): {"torch": (5, 8, 20), "jax": (3, 4, 8), "tensorflow": (3, 4, 8)},
    ("S4",): {"torch": (6, 12, 40)},
    ("S5", "S5PTD"): {"jax": (4, 4, 4), "torch": (5, 5, 5), "tensorflow": (5, 5, 5)},
    ("H3",): {"torch": (3, 3, 3), "jax": (3, 3, 3), "tensorflow": (3, 3, 3)},
    ("S4ND",): {"torch": (3, 3, 3), "jax": (3, 3, 3), "tensorflow": (3, 3, 3)},
    ("LRU",): {"jax": (3, 3, 3), "torch": (3, 3, 3), "tensorflow": (3, 3, 3)},
}
LSTM = (1, 1, 4)


class Verdict(NamedTuple):
    """One promise: the worst measurement, its row, and whether the promise holds."""

    target: str
    backend: str
    limit: float
    seen: float
    where: str
    met: bool


def verdicts(rows):
    """Compares rows with the targets, for each backend that was measured.

    Args:
        rows: list of dicts, as `run` returns them, of any sections.

    Returns:
        List of `Verdict`, only of what was measured; `seen` is the worst row.

    Example:
        ```python
        row = {"section": "fit", "backend": "jax", "layer": "S4D", "ratio": 5.0}
        verdicts([row])[0].met  # True
        ```
    """
    results = []
    for backend in dict.fromkeys(row["backend"] for row in rows):
        backend_rows = [row for row in rows if row["backend"] == backend]
        for target, limit, least, seen in _measured(backend_rows):
            if not seen:
                continue
            value, where = (min if least else max)(seen)
            met = value >= limit if least else value <= limit
            results.append(Verdict(target, backend, limit, value, where, met))
    return results


def _measured(rows):
    """Yields target, limit, whether that is the least allowed, and pairs (value, row)."""
    of = lambda section: [row for row in rows if row["section"] == section]
    steps = lambda names: [
        (row["ratio"], f"{row['layer']}, {row['form']}")
        for row in of("stream")
        if row["layer"] in names
    ]
    fits = [(row["ratio"], row["layer"]) for row in of("fit")]
    yield "steps of `fit` a second, over the published formulation", 4.0, True, fits
    yield "one streamed step of a diagonal layer, over LSTM", 1.0, False, steps(DIAGONAL)
    yield "one streamed step of S4, over LSTM", 4.0, False, steps(["S4"])
    layers, memory = (
        [row for row in of(section) if row["picked"] and row["layer"] in SYSTEMS]
        for section in ("layers", "memory")
    )
    grids = [row for row in of("layers") if row["picked"] and row["layer"] in GRIDS]
    yield from _over_published([*layers, *grids])
    yield from _over_lstm(layers, of("layers"))
    best = [(row["fraction"], row["layer"]) for row in layers if row["shape"] == [8, 4096, 128, 64]]
    yield "share of the matmul rate at 4,096 steps, best layer", 0.3, True, best and [max(best)]
    label = "from 16,384 to 65,536 steps"
    yield f"time of training {label}", 4.4, False, _growth(layers, "training")
    yield f"time of a forward pass {label}", 4.4, False, _growth(layers, "forward")
    yield f"memory of training {label}", 4.4, False, _growth(memory, "training_memory")
    yield f"memory of a forward pass {label}", 4.4, False, _growth(memory, "forward_memory")
    working = [
        (row["working"], row["layer"]) for row in memory if row["shape"] == [2, 16384, 128, 64]
    ]
    yield "memory of training a layer, in activations", 8.0, False, working
    yield from _selective(of("selective"), of("selective_memory"))
    yield from _decoding(of("decode"))
    million = [(row["process_memory"] / GIBIBYTE, row["layer"]) for row in of("long")]
    yield "process of a forward pass over 1,048,576 steps, GiB", 6.0, False, million


def _over_published(rows):
    for names, limits in PUBLISHED.items():
        least_ratios = limits.get(rows[0]["backend"] if rows else None, ())
        for length, limit in zip(LENGTHS, least_ratios, strict=False):
            seen = [
                (row["ratio"], row["layer"])
                for row in rows
                if row["layer"] in names and row["shape"][1:3] == [length, 128] and row.get("ratio")
            ]
            yield f"training {', '.join(names)} over published, {length:,}", limit, True, seen


def _selective(rows, memory):
    """Of the recurrences; and Mamba-2 over Mamba."""
    limits_of_method = {
        ("Mamba", "slow path"): {1024: 20},
        ("Mamba", "parallel scan"): {1024: 2.5, 4096: 2.5},
        ("Mamba", "associative_scan"): {1024: 2.5, 4096: 2.5},
        ("Mamba2", "chunks of 256"): {1024: 3, 4096: 5},
        ("DeltaNet", "chunks and a solver"): {4096: 3},
    }
    for (layer, method), limits in limits_of_method.items():
        for length, limit in limits.items():
            seen = [
                (row["ratio"], layer)
                for row in rows
                if (row["layer"], row["method"], row["shape"][1]) == (layer, method, length)
            ]
            yield f"training {layer} over {method}, {length:,}", limit, True, seen
    own_seconds = {
        (row["layer"], row["shape"][1]): row["training"]
        for row in rows
        if (row["form"], row["method"]) == ("recurrence", "ours")
    }
    seen = [
        (time / own_seconds["Mamba2", length], f"{length:,} steps")
        for (layer, length), time in own_seconds.items()
        if layer == "Mamba" and ("Mamba2", length) in own_seconds
    ]
    yield "training Mamba2 over Mamba", 5.0, True, seen
    seen = [
        (row["activations"], f"{row['shape'][1]:,} steps")
        for row in memory
        if (row["layer"], row["form"], row["method"]) == ("Mamba", "recurrence", "ours")
    ]
    yield "memory of training Mamba's recurrence, in activations", 10.0, False, seen


def _decoding(rows):
    """The time of a token after many over that after few, of each model."""
    flat, seen = {}, {}
    for row in rows:
        if row["form"] == "flat":
            name = row["layer"], row["blocks"], row["width"]
            flat.setdefault(name, {})[row["context"]] = row["step"]
    for (layer, blocks, width), steps in flat.items():
        first, last = min(steps), max(steps)
        target = f"time of a token after {last:,} over that after {first:,}"
        ratio = steps[last] / steps[first]
        seen.setdefault(target, []).append((ratio, f"{layer}, {blocks} x {width}"))
    for target, ratios in seen.items():
        yield target, 1.05, False, ratios


def _over_lstm(rows, all_rows):
    for length, limit in zip(LENGTHS, LSTM, strict=True):
        seconds = {
            row["layer"]: row["training"] for row in all_rows if row["shape"][1:3] == [length, 128]
        }
        seen = [
            (seconds["LSTM"] / row["training"], row["layer"])
            for row in rows
            if row["layer"] in SYSTEMS and row["shape"][1:3] == [length, 128] and "LSTM" in seconds
        ]
        yield f"training any layer over LSTM, {length:,}", limit, True, seen


def _growth(rows, key):
    """Ratios of a value at 65,536 steps to that at 16,384, of the same batch and width."""
    by_shape = {(row["layer"], tuple(row["shape"])): row[key] for row in rows}
    pairs = []
    for (layer, shape), value in by_shape.items():
        shorter = by_shape.get((layer, (shape[0], 16384, *shape[2:])))
        if shape[1] == 65536 and shorter and value:
            pairs.append((value / shorter, layer))
    return pairs
