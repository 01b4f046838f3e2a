"""`method="auto"`, which reads a table of measurements."""

import runpy
from pathlib import Path

import pytest

from keras_ssm import layers
from keras_ssm.layers import methods
from keras_ssm.ops import backend

TOOL = Path(__file__).resolve().parents[2] / "tools" / "method_table.py"

pytestmark = pytest.mark.once("torch")


@pytest.fixture
def table(monkeypatch):
    """Puts rows `(device, layer, length, method, speedup)` in the place of the table."""

    def put(*measured):
        names = "device", "layer", "length", "method", "speedup"
        rows = [{"backend": "torch", **dict(zip(names, row, strict=True))} for row in measured]
        monkeypatch.setattr(methods, "rows", lambda: rows)
        methods._measured.cache_clear()

    yield put
    methods._measured.cache_clear()


def chosen(length, **arguments):
    return layers.S4D(state_dim=4, seed=0, **arguments).chosen_method(length)


def test_the_fastest_evaluation_near_a_length_is_taken(table, monkeypatch):
    monkeypatch.setattr(backend, "device_name", lambda: "a card")
    table(
        ("a card", "S4D", 64, "fft", 3.0),
        ("a card", "S4D", 64, "chunked", 2.0),
        ("a card", "S4D", 256, "fft", 2.1),  # no more than noise
        ("a card", "S4D", 256, "chunked", 2.0),
        ("a card", "S4", 256, "fft", 9.0),  # without anything beside it
        ("cpu", "S4D", 256, "fft", 9.0),
        ("cpu", "S4D", 256, "chunked", 1.0),
    )
    assert [chosen(n) for n in (15, 16, 64, 127, 129, 5000)] == [
        "chunked",
        *["fft"] * 3,
        *["chunked"] * 2,
    ]
    assert chosen(64, method="chunked") == "chunked" and chosen(256, method="fft") == "fft"
    assert chosen(None) == "chunked"
    assert layers.S4(state_dim=4, seed=0).chosen_method(256) == "chunked"
    monkeypatch.setattr(backend, "device_name", lambda: "another card")
    assert chosen(64) == "chunked"


def test_the_layer_runs_what_the_table_says(rng, table, monkeypatch):
    monkeypatch.setattr(backend, "device_name", lambda: "a card")
    x, layer = rng.standard_normal((1, 8, 1)).astype("float32"), layers.S4D(state_dim=4, seed=0)
    layer(x)
    ran, kernel = [], layer.convolution_kernel
    monkeypatch.setattr(layer, "convolution_kernel", lambda *a: ran.append(a) or kernel(*a))
    layer(x)
    assert not ran
    table(("a card", "S4D", 8, "fft", 3.0), ("a card", "S4D", 8, "chunked", 2.0))
    layer(x)
    assert len(ran) == 1


def test_the_table_is_that_of_the_measurements():
    measurements = runpy.run_path(str(TOOL))["measurements"]()
    assert methods.rows() == [{k: str(v) for k, v in row.items()} for row in measurements]
    assert {row["device"] for row in methods.rows()} >= {"cpu"}
