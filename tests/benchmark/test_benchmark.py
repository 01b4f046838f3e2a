"""The yardsticks compute what our layers compute, and a benchmark of small shapes runs."""

import runpy
import time
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops

from keras_ssm import layers, machine
from keras_ssm.benchmark import (
    arithmetic,
    picture,
    records,
    report,
    run,
    targets,
    timing,
    worker,
)
from keras_ssm.benchmark.candidates import (
    candidates,
    evaluations,
    make,
    published_passes,
    weights_of,
)
from keras_ssm.benchmark.memory import peak_memory
from keras_ssm.benchmark.sections import fit, selective
from keras_ssm.benchmark.stepping import passes
from keras_ssm.benchmark.yardsticks import published
from keras_ssm.benchmark.yardsticks.selective import forms
from keras_ssm.cli import main
from keras_ssm.ops import pair
from tests.backend_tools import BACKEND, relative_error, to_numpy

once = pytest.mark.once("torch")

SHAPES = [(1, 32, 4, 8)]
ROOT = Path(__file__).resolve().parents[2]


@once
@pytest.mark.parametrize("name", [*run.SYSTEMS, *run.KERNELS, *run.GATED, *run.BLOCKS, *run.GRIDS])
def test_yardsticks_compute_the_same(name, rng):
    layer = make(name, 4, 8, length=300)
    x = rng.standard_normal((2, *((5, 10) if name in run.GRIDS else (50,)), 4)).astype("float32")
    layer.build((*[None] * (x.ndim - 1), 4))
    expected = to_numpy(layer(x))
    weights = weights_of(layer)
    if name == "S4":  # the published one stores C (I - dA^L)
        bank = layer.bank()
        row = -to_numpy(ops.einsum("chi,hij->chj", bank.readout, bank.power(50)))
        re, im = pair.split(row / 2)
        weights["C_real"], weights["C_imag"] = re, -im
    function, features_last = published(name)
    u = x if features_last else np.moveaxis(x, -1, 1)
    y = to_numpy(
        function(
            {k: ops.convert_to_tensor(v) for k, v in weights.items()}, ops.convert_to_tensor(u)
        )
    )
    assert relative_error(y if features_last else np.moveaxis(y, 1, -1), expected) < 2e-5


@pytest.mark.once("jax")
def test_rows_of_every_section(tmp_path):
    job = {"names": ["S4D"], "seconds": 0.0}
    block = {"shapes": SHAPES, "names": ["GSS"], "methods": ["auto"]}
    assert [row["method"] for row in worker.rows("memory", **block)] == ["chunked", "published"]
    named = {"shapes": SHAPES, "names": ["S4D", "GRU"], "methods": ["auto", "fft"]}
    rows = list(worker.rows("layers", seconds=0.0, **named))
    assert [row["layer"] for row in rows] == ["S4D", "S4D", "GRU"]
    assert [row["method"] for row in rows] == ["chunked", "fft", None]
    assert [row["picked"] for row in rows] == [True, False, False]
    for row in rows:
        assert row["backend"] == BACKEND and row["section"] == "layers"
        assert min(row["training"], row["forward"], row["streamed"], row["matmul_rate"]) > 0
        expected = 3 * row["operations"] / row["training"] / row["matmul_rate"]
        assert row["fraction"] == pytest.approx(expected)
    assert rows[0]["ratio"] == rows[0]["published"] / rows[0]["training"]
    memory = list(worker.rows("memory", **{**named, "names": ["S4D"], "methods": ["fft"]}))
    assert [row["method"] for row in memory] == ["fft", "published"]
    stream = list(worker.rows("stream", features=4, state=8, layers=1, **job))
    assert [row["form"] for row in stream] == ["step"] + ["loop"] * (BACKEND != "torch")
    assert all(row["ratio"] == row["step"] / row["lstm"] for row in stream[:1])
    trained = list(worker.rows("fit", size=(2, 32, 4, 1, 8), **job))
    assert trained[0]["ratio"] == pytest.approx(trained[0]["rate"] / trained[0]["published_rate"])
    long = list(worker.rows("long", names=["S4D"], shape=(1, 256, 4, 8)))
    assert long[0]["process_memory"] > long[0]["forward_memory"] >= 0
    rows += memory + stream + trained + long
    check_page(rows, tmp_path)
    selective_sections = {"selective", "selective_memory", "decode"}
    assert {*report.sheets(rows)} == {*run.SECTIONS, "targets"} - selective_sections
    assert len(report.tables(rows)) == 6


def check_page(rows, tmp_path):
    """What is written and read again makes the same tables."""
    path = records.new_path(tmp_path, "2026-01-02", [BACKEND])
    facts = machine.describe(), "keras-ssm benchmark", "2026-01-02", 1.0
    records.write(path, records.Run(*facts, rows))
    (found,) = records.read_all(tmp_path)
    assert found.machine == machine.describe() and found.command == "keras-ssm benchmark"
    for row, read in zip(rows, found.rows, strict=True):
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        assert {key: read[key] for key in numbers} == pytest.approx(numbers, rel=1e-5)
        others = {key: value for key, value in row.items() if key not in numbers}
        assert {key: read[key] for key in others} == others
    page = report.markdown([[found]])
    assert page.count(f"| {BACKEND} |") == len(rows) + len(targets.verdicts(rows))
    assert report.sheets(found.rows).keys() == report.sheets(rows).keys()


@once
def test_rows_of_the_selective_sections(tmp_path):
    small = {"shapes": [(1, 32, 4, 2)]}
    scanned = list(worker.rows("selective", seconds=0.0, **small))
    methods = ["ours", "ours", *forms("Mamba"), "ours", "ours", "chunks of 256"]
    methods += ["ours", "ours", *forms("DeltaNet")]
    assert [row["method"] for row in scanned] == methods
    assert scanned[4]["ratio"] == scanned[4]["training"] / scanned[1]["training"]
    rows = scanned + list(worker.rows("selective_memory", **small))
    sizes = {"published": (1, 8, 10), "transformer": (1, 8, 10), "small": (1, 8, 10)}
    rows += worker.rows("decode", seconds=0.0, context=7, cache=16, contexts=(3, 5), **sizes)
    assert [row["context"] for row in rows[-8:]] == [3, 16, 3, 7, 3, 5, 3, 5]
    ratios = {v.target for v in targets.verdicts(rows[-8:])}
    assert ratios == {f"time of a token after {n} over that after 3" for n in (5, 7)}
    check_page(rows, tmp_path)


@once
@pytest.mark.parametrize("name", selective.NAMES)
def test_the_forms_of_others_compute_the_same(name):
    arguments, x, _ = selective.inputs(name, (2, 70 if name == "Mamba" else 512, 8, 4))
    w, x = {k: ops.convert_to_tensor(v) for k, v in arguments.items()}, ops.convert_to_tensor(x)
    found, expected = forms(name), selective.recurrence(name)(w, x)
    assert len(found) == (3 if name == "Mamba" else 1)
    wanted = of_all(lambda w, x: selective.recurrence(name)(w, x), w, x)
    for method, function in found.items():
        assert relative_error(to_numpy(function(w, x)), to_numpy(expected)) < 1e-5, method
        for ours, theirs in zip(wanted, of_all(function, w, x), strict=True):
            assert relative_error(to_numpy(theirs), to_numpy(ours)) < 1e-5, method


def of_all(function, w, x):
    """The gradients of a sum of squares."""
    import torch

    leaves = [z.detach().requires_grad_() for z in (*w.values(), x)]
    y = function(dict(zip(w, leaves[:-1], strict=True)), leaves[-1])
    return torch.autograd.grad((y * y).sum(), leaves)


@once
def test_the_slow_path_is_continued_beyond_what_is_timed(monkeypatch):
    """3 n + 0.01 n n for the gradient, 5 n for the forward pass."""
    monkeypatch.setattr(selective, "LONGEST_SLOW", 64)
    passes = lambda function, weights, x, g: [x.shape[1]] * 2
    monkeypatch.setattr(selective, "passes", passes)
    times = lambda n, *_: (5.0 * n[0], 3.0 * n[0] + 0.01 * n[0] ** 2)
    monkeypatch.setattr(selective, "alternate", times)
    found = selective._continued("Mamba", "slow path", (1, 128, 4, 2))
    np.testing.assert_allclose(found, [5.0 * 128, 3.0 * 128 + 0.01 * 128**2])


@once
def test_targets_of_the_selective_recurrences():
    def row(layer, method, training, length=1024, **more):
        common = {"section": "selective", "backend": "torch", "form": "recurrence"}
        shape = [2, length, 256, 16]
        return {
            **common,
            "layer": layer,
            "method": method,
            "shape": shape,
            "training": training,
            **more,
        }

    rows = [row("Mamba", "ours", 0.06), row("Mamba2", "ours", 0.02)]
    rows += [
        row("Mamba", "slow path", 1.5, ratio=25.0),
        row("Mamba", "parallel scan", 0.1, ratio=2.0),
    ]
    common = {"section": "decode", "backend": "torch", "layer": "Mamba", "form": "flat"}
    large, small = {"blocks": 24, "width": 768}, {"blocks": 2, "width": 64}
    rows += [{**common, **small, "context": n, "step": 0.5 + n / 1000} for n in (10, 30)]
    rows += [{**common, **large, "context": n, "step": 5.0 + n / 10} for n in (10, 30)]
    found = {v.target: v for v in targets.verdicts(rows)}
    assert found["training Mamba over slow path, 1,024"].met
    assert not found["training Mamba over parallel scan, 1,024"].met
    assert found["training Mamba2 over Mamba"].seen == pytest.approx(3.0)
    flat = found["time of a token after 30 over that after 10"]
    assert flat.seen == pytest.approx(8 / 6) and not flat.met and len(found) == 4
    assert flat.where == "Mamba, 24 x 768"


@once
def test_the_picture_has_a_panel_a_backend_and_five_lines_at_most(tmp_path):
    common = {"section": "layers", "shape": [2, 64, 128, 8], "training": 0.5}
    family = [{**common, "layer": n, "method": "chunked", "picked": True} for n in run.SYSTEMS]
    others = [{**common, "layer": n, "method": None, "picked": False} for n in run.OTHERS]
    rows = [{**row, "backend": name} for name in ("torch", "jax") for row in family + others]
    rows += [{**row, "published": 3.0} for row in rows if row["layer"] == "S4D"]
    rows.append({**rows[0], "layer": "S4D", "method": "fft", "picked": False, "training": 9.0})
    panels = picture.curves(rows)
    assert list(panels) == ["jax", "torch"]
    names = ["S4D", "S5", "S4D as published", "LSTM", "attention"]
    assert [line.name for line in panels["torch"]] == names
    assert panels["torch"][0].points == {64: 250.0} and panels["torch"][2].points == {64: 1500.0}
    picture.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


@once
@pytest.mark.parametrize("name", ["S4", "DSS", "S5"])
def test_the_trained_yardstick_is_the_same_model(name, rng):
    size = (2, 40, 4, 2, 8)
    ours = fit.classifier(make(name, 1, 8), size)
    theirs = fit.classifier(fit.plain(name, size), size)
    if name == "S4":  # the published one stores C (I - dA^L): other numbers, the same weights
        assert [v.shape for v in ours.weights] == [v.shape for v in theirs.weights]
        return
    theirs.set_weights(ours.get_weights())
    x = rng.standard_normal((2, 40, 1)).astype("float32")
    assert relative_error(theirs(x), ours(x)) < 1e-4
    with pytest.raises(ValueError, match=r"no state.*return_state=True"):
        theirs.backbone.blocks[0].mixer(np.zeros((1, 3, 4), "float32"), return_state=True)


def test_memory_counts_what_a_call_allocates():
    ones = lambda: ops.ones(2**25)
    ones()  # compiled once before, as the function asks
    found = peak_memory(ones)
    assert abs(found - 2**27) < 2**21  # the resident rest moves by some pages


@once
@pytest.mark.parametrize("name", [*run.SYSTEMS, *run.GATED, *run.BLOCKS, *run.OTHERS])
def test_operations_are_counted(name):
    """Against sums written out for one small shape, and growth with the batch."""
    shape, method = (2, 128, 8, 16), None if name in run.OTHERS else "chunked"
    count, least = arithmetic.count(name, method, shape)
    assert 0 < least <= count
    B, L, H, N = shape
    T, M = 64, 2
    expected = {
        "S4D": 2 * B * H * M * T * (T + 2 * N) + 4 * B * H * M * N + 8 * H * N * T,
        "S5": 4 * B * L * H * N + 8 * B * L * N,
        "LSTM": 2 * B * L * (2 * H) * (4 * H),
        "GRU": 2 * B * L * (2 * H) * (3 * H),
        "MultiHeadAttention": 2 * B * L * H * H * 4 + 2 * 2 * B * L * L * H,
    }
    inside = 2 * B * 2 * M * T * (T + 4 * N) + 8 * B * 2 * M * N + 16 * 2 * N * T  # H / 4 features
    expected["GSS"] = inside + 37 * B * L * H * H // 2
    expected["H3"] = expected["S4D"] + 4 * B * L * H * T + 8 * B * L * H * H
    # DSS has N modes, not N / 2 pairs. S4 has a dense dA: six doublings of it, of the columns and
    # of the rows.
    expected["S4PTD"], expected["S5PTD"] = expected["S4D"], expected["S5"]
    expected["LRU"] = 4 * B * L * H * (2 * N) + 8 * B * L * (2 * N)  # N modes, as DSS
    expected["DSS"] = 2 * B * H * M * T * (T + 4 * N) + 8 * B * H * M * N + 16 * H * N * T
    expected["S4"] = 2 * B * H * M * T * (T + 2 * N) + 2 * B * H * M * N * N
    expected["S4"] += 2 * H * N * T + H * N * N * (2 * N * 7 + 4 * T)
    expected["SpaceTime"] = expected["S4"]
    assert count == expected[name]
    assert arithmetic.count(name, method, (2 * B, L, H, N))[0] > 1.5 * count or name in (
        "S4",
        "SpaceTime",
    )


@once
def test_evaluations_of_a_layer_that_holds_its_kernel():
    shape = (8, 64, 128, 64)
    assert evaluations("LongConv", shape, run.METHODS) == ["fft", "recurrent"]
    assert arithmetic.count("LongConv", "recurrent", shape)[0] == 2 * 8 * 64 * 64 * 128
    more = 8 * 64 * 128 * (8 * 128 + 18) + 2 * 64 * 64 * (3 + 128 + 128)
    fft = [arithmetic.count(name, "fft", shape)[0] for name in ("LongConv", "Hyena")]
    assert fft[1] - fft[0] == more
    ((layer, method, _),) = candidates("SGConv", (1, 8, 2, 4), ["auto"])
    assert (layer.max_length, layer.kernel_dim, method) == (8, 8, "fft")


@once
@pytest.mark.parametrize("name", run.SYSTEMS)
def test_evaluations_of_a_length(name):
    assert evaluations(name, (8, 64, 128, 64), run.METHODS) == ["chunked", "fft", "recurrent"]
    assert evaluations(name, (8, 4096, 128, 64), run.METHODS) == ["chunked", "fft"]
    assert evaluations("LSTM", (8, 64, 128, 64), run.METHODS) == [None]


@once
def test_a_grid_is_timed_by_what_auto_picks():
    shape = (2, 4096, 8, 4)
    assert evaluations("S4ND", shape, run.METHODS) == ["auto", "chunked", "fft"]
    ((layer, method, _),) = candidates("S4ND", shape, ["auto"])
    assert {method, layer.method, *(axis.method for axis in layer.axis_layers)} == {"auto"}
    count, fewest = arithmetic.count("S4ND", "auto", shape)
    assert count == fewest == 2 * (2 * 2 * 4096 * 8 * 64 + 8 * 8 * 4 * 64)
    longer = (2, 300 * 300, 8, 4)  # no matrices of so many steps
    by_chunks = arithmetic.count("S4ND", "chunked", longer)
    assert arithmetic.count("S4ND", "auto", longer) == by_chunks


@once
def test_what_does_not_fit_is_left_out():
    assert candidates("MultiHeadAttention", (8, 65536, 4, 8), ["auto"]) == []
    assert published_passes("S4", layers.S4(), (1, 2**20, 64, 64)) is None


@once
def test_targets_compare_the_worst_row():
    stream = {"section": "stream", "backend": "jax", "form": "step"}
    rows = [
        {**stream, "layer": "S4D", "ratio": 0.5},
        {**stream, "layer": "DSS", "ratio": 1.5},
        {**stream, "layer": "S4", "ratio": 3.0},
        {"section": "fit", "backend": "torch", "layer": "S5", "ratio": 4.5},
    ]
    for length, value in ((16384, 1.0), (65536, 4.5)):
        rows.append(
            {
                "section": "layers",
                "backend": "jax",
                "layer": "S4",
                "picked": True,
                "shape": [1, length, 64, 64],
                "training": value,
                "forward": 1.0,
            }
        )
    found = {(v.target, v.backend): v for v in targets.verdicts(rows)}
    assert len(found) == 5
    diagonal = found["one streamed step of a diagonal layer, over LSTM", "jax"]
    assert (diagonal.seen, diagonal.where, diagonal.met) == (1.5, "DSS, step", False)
    assert found["one streamed step of S4, over LSTM", "jax"].met
    assert found["steps of `fit` a second, over the published formulation", "torch"].met
    growth = found["time of training from 16,384 to 65,536 steps", "jax"]
    assert growth.seen == 4.5 and not growth.met


@once
def test_targets_of_training_depend_on_backend_and_length():
    def row(backend, layer, training, **more):
        common = {"section": "layers", "forward": 1.0, "shape": [8, 4096, 128, 64]}
        return {**common, "backend": backend, "layer": layer, "training": training, **more}

    picked = {"picked": True, "fraction": 0.2}
    rows = [
        row("torch", "S4D", 1.0, ratio=7.9, **picked),
        row("torch", "DSS", 3.0, ratio=9.0, **{**picked, "fraction": 0.4}),
        row("torch", "DSS", 9.0, ratio=1.0, picked=False),
        row("torch", "LSTM", 2.0, picked=False),
        row("jax", "S4D", 1.0, ratio=4.1, **picked),
    ]
    found = {(v.target, v.backend): v for v in targets.verdicts(rows)}
    assert len(found) == 5
    over = "training S4D, DSS, S4PTD over published, 4,096"
    assert (found[over, "torch"].seen, found[over, "torch"].met) == (7.9, False)
    assert found[over, "jax"].met
    lstm = found["training any layer over LSTM, 4,096", "torch"]
    assert lstm.where == "DSS" and not lstm.met
    share = found["share of the matmul rate at 4,096 steps, best layer", "torch"]
    assert (share.seen, share.met) == (0.4, True)


def save(folder, rows, date="2026-01-02", processor="Abacus"):
    described = {**machine.describe(), "processor": processor}
    path = records.new_path(folder, date, {row["backend"] for row in rows})
    records.write(path, records.Run(described, "keras-ssm benchmark", date, 2.0, rows))
    return path


@once
def test_new_rows_take_the_place_of_what_measured_the_same(tmp_path):
    row = {"section": "long", "backend": "jax", "layer": "S4D", "shape": [1, 2, 3, 4], "forward": 1}
    others = [{**row, "backend": "torch"}, {**row, "layer": "S5"}]
    paths = [
        save(tmp_path, [row]),
        save(tmp_path, others),
        save(tmp_path, [{**row, "forward": 7}], date="2025-12-31"),
        save(tmp_path, [{**row, "forward": 5}], processor="Quipu"),
        save(tmp_path, [{**row, "forward": 2}]),
    ]
    names = ["2026-01-02-01-jax", "2026-01-02-02-jax-torch", "2025-12-31-01-jax"]
    assert [path.stem for path in paths[:3]] == names
    first, second = records.by_machine(records.read_all(tmp_path))
    assert [run.machine["processor"] for run in (*first, *second)] == ["Abacus"] * 2 + ["Quipu"]
    seen = [(row["backend"], row["layer"], row["forward"]) for row in records.all_rows(first)]
    assert seen == [("torch", "S4D", 1), ("jax", "S5", 1), ("jax", "S4D", 2)]


@once
def test_models_of_two_sizes_are_two_measurements(tmp_path):
    row = {"section": "decode", "backend": "jax", "layer": "Mamba", "form": "flat", "context": 100}
    for blocks, width in ((24, 768), (2, 768), (2, 64)):
        save(tmp_path, [{**row, "blocks": blocks, "width": width, "step": 0.5}])
    (runs,) = records.by_machine(records.read_all(tmp_path))
    assert [row["width"] for row in records.all_rows(runs)] == [768, 768, 64]


@once
@pytest.mark.parametrize("damage", ["", "[]", "cut", "more", "machine"])
def test_what_is_no_result_is_refused(tmp_path, damage):
    row = {"section": "long", "backend": "jax", "layer": "S4D", "shape": [1, 2, 3, 4], "forward": 1}
    path = save(tmp_path, [row])
    text = path.read_text()
    others = {
        "cut": text.rstrip()[:-2],
        "more": text.rstrip() + ",1\n",
        "machine": text.replace("processor", "p"),
    }
    path.write_text(others.get(damage, damage))
    with pytest.raises(ValueError, match=r"`keras-ssm benchmark`. Received: .*01-jax"):
        records.read_all(tmp_path)


@once
def test_the_pages_show_the_committed_results(tmp_path):
    """What `python tools/draw_results.py` writes is what stands there."""
    draw_results = runpy.run_path(ROOT / "tools" / "draw_results.py")
    machines = records.by_machine(records.read_all(ROOT / "docs" / "performance"))
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert draw_results["with_tables"](page, records.all_rows(machines[0])) == page
    assert page.count("| `S4D` |") >= 3
    listed = (ROOT / "docs" / "performance" / "benchmark.md").read_text(encoding="utf-8")
    assert report.markdown(machines) == listed
    ratios = [
        row["ratio"]
        for row in records.all_rows(machines[0])
        if row["section"] == "layers" and (row["layer"], row["picked"]) == ("S4D", True)
        if row["shape"][1:3] == [16384, 128]
    ]
    claim = f"{min(ratios):.0f} to {max(ratios):.0f} times as fast"
    for path in ("README.md", "CHANGELOG.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert claim in " ".join(text.split()), path
    draw_results["draw_front"](tmp_path / "time.png")
    assert (tmp_path / "time.png").stat().st_size > 1000


@once
def test_the_command_measures_and_writes(tmp_path):
    options = ["--backend", BACKEND, "--layer", "S4D", "--quick", "--memory"]
    result = CliRunner().invoke(main, ["benchmark", *options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (found,) = records.read_all(tmp_path)
    assert [row["method"] for row in found.rows] == ["chunked"]
    assert "chunked (auto)" in (tmp_path / "benchmark.md").read_text()
    (path,) = (tmp_path / "results").iterdir()
    path.write_text("[]")
    result = CliRunner().invoke(main, ["benchmark", *options, "--out", str(tmp_path)])
    assert result.exit_code == 1 and "Received:" in result.output
    assert path.read_text() == "[]" and [*(tmp_path / "results").iterdir()] == [path]


def test_a_training_pass_returns_the_loss(rng):
    """A compiler would drop the forward pass of a layer that needs no output for its gradient."""
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    _, training = passes(lambda weights, x: weights[0] * x, [np.full(1, 2.0, "float32")], x, x)
    np.testing.assert_allclose(to_numpy(training()[0]), 2 * (x * x).sum(), rtol=1e-5)


@once
@pytest.mark.parametrize(
    ("option", "value", "known"), [("--layer", "S7", "S4"), ("--method", "magic", "auto")]
)
def test_the_command_refuses_what_it_does_not_know(option, value, known):
    result = CliRunner().invoke(main, ["benchmark", option, value])
    assert result.exit_code == 2 and f"{value} is none of {known}" in result.output


@once
@pytest.mark.parametrize("options", [["--stream"], ["--fit"], ["--long"], ["--quick", "--memory"]])
def test_a_section_that_would_measure_nothing_is_refused(options):
    result = CliRunner().invoke(main, ["benchmark", *options, "--layer", "GSS"])
    assert result.exit_code == 2 and f"{options[-1]} measures S4, " in result.output


@once
def test_a_failing_backend_is_told(monkeypatch):
    monkeypatch.setattr(run, "WORKER", "import sys; sys.exit('no memory')")
    job = {"shapes": SHAPES, "names": ["S4D"], "methods": ["auto"], "quick": True}
    with pytest.raises(RuntimeError, match=f"failed on {BACKEND}.*no memory"):
        run.run(["memory"], [BACKEND], **job)


@once
def test_alternate_runs_in_turn(monkeypatch):
    monkeypatch.setattr(timing, "SETTLES", 0.0)
    calls = []
    times = timing.alternate([lambda: calls.append(0), lambda: calls.append(1)], 0.0)
    assert len(times) == 2 and calls[-12:] == [0, 0, 1, 1] * 3 and np.isfinite(times).all()


@once
def test_alternate_runs_what_takes_long_once(monkeypatch):
    monkeypatch.setattr(timing, "LONG", 0.02)
    monkeypatch.setattr(timing, "SETTLES", 0.0)
    calls = []
    slow = lambda: (time.sleep(0.03), calls.append(0))
    times = timing.alternate([slow, lambda: calls.append(1)], 0.0)
    assert times[0] > 0.03 > times[1]
    assert calls == [0, *[1] * (2 + 2 * 3)]


@once
def test_what_follows_a_long_call_is_not_timed_at_once(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def taking(seconds):
        def function():
            now[0] += seconds
            calls.append(seconds)

        return function

    times = timing.alternate([taking(0.5), taking(0.03)], 0.0, clock=lambda: now[0])
    np.testing.assert_allclose(times, [0.5, 0.03])
    # A fifth of half a second: four calls of the short one that are not timed.
    assert calls[4:] == [0.5, 0.5, *[0.03] * 5] * 3
