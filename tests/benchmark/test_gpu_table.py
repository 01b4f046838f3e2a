"""The table of times on a GPU, of small shapes on the processor."""

import csv
import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.once("torch")

TOOL = Path(__file__).resolve().parents[2] / "tools" / "gpu_table.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"STATE": 4, "STATE_OF_MAMBA": 2, "SECONDS": 0.0, "TRAINED": ["S4"]}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_every_row_is_measured(tool, tmp_path, capsys):
    path = tmp_path / "table.csv"
    sizes = {"shapes": [(1, 6, 8), (1, 7, 8)], "fits": [(1, 8, 4, 1, 4)], "streams": (1, 8)}
    tool.main(path, **sizes)
    assert "left out" not in capsys.readouterr().err
    text = path.read_text().splitlines()
    assert [line.split(":")[0] for line in text[:3]] == ["# machine", "# command", "# date"]
    rows = list(csv.DictReader(text[3:]))
    names = {"S4D", "S4", "DSS", "S5"}
    expected = names | {
        "S4PTD",
        "Mamba",
        "block of S4D",
        "S4D (fft)",
        "S4 (fft)",
        "attention, 8 heads",
    }
    expected |= {f"{name} as published" for name in names} | {"cuDNN LSTM"}
    for length in ("6", "7"):
        assert {r["layer"] for r in rows if r["length"] == length} == expected
    others = {r["layer"] for r in rows if r["length"] in ("1", "8")}
    assert others == {
        "fit of S4",
        "fit of S4 as published",
        *(f"step of 1 {n}" for n in ("S4D", "S4", "S5")),
    }
    assert {r["dtype"] for r in rows if r["layer"] == "DSS"} == {"float32", "bfloat16"}
    for row in rows:
        of_layer = row["length"] in ("6", "7")
        assert float(row["training" if "fit" in row["layer"] else "forward"]) > 0.0
        assert bool(row["training_floor"]) == of_layer
        assert row["card"] == "cpu" or not of_layer or row["form"] != "eager" or row["memory"]


def test_what_fails_is_said_and_left_out(tool, tmp_path, capsys, monkeypatch):
    def failing(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tool, "NAMES", ["S4D", "S5"])
    monkeypatch.setattr(tool, "BY_OTHER_METHODS", [])
    monkeypatch.setattr(tool, "_of_published", failing)
    monkeypatch.setattr(tool, "STREAMED", [])
    tool.main(tmp_path / "table.csv", shapes=[(1, 6, 8)], fits=[])
    assert capsys.readouterr().err.count("left out: RuntimeError: out of memory") == 4
    assert "S5" in (tmp_path / "table.csv").read_text()
