"""Every preset of the package: its recorded outputs, and the same answer from a stream."""

import csv

import numpy as np
import pytest

import keras_ssm
from keras_ssm import presets
from keras_ssm.models import SSMForecaster
from keras_ssm.models.saving import sample_check
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.presets import registry, results
from tests.backend_tools import BACKEND
from tests.preset_checks import difference_in_eight_bits, is_small, stream_difference

LARGEST, LARGEST_OF_ALL = 2 * 2**20, 25 * 2**20  # bytes: the wheel stays below 30 MB
ALL = keras_ssm.list_presets()
# Digits and plays are read on each backend by files of their own.
TESTED = ("_digits", "_tinyshakespeare")


def cases():
    """Every preset; on the backends that compile the first of each system and task."""
    seen = set()
    for name, info in ALL.items():
        kind = info["system"], info["task"]
        told = kind in seen or name.endswith(TESTED) or info["system"].endswith("PTD")
        seen |= set() if told else {kind}
        yield pytest.param(name, marks=[pytest.mark.once("torch")] if told else [])


@pytest.mark.eager
@pytest.mark.parametrize("name", [*cases()])
def test_recorded_outputs_and_a_stream(name, rng):
    document = ALL[name]
    model = load_model(name, check_sample=False)
    sample = document["sample"]
    expected = np.array(sample["outputs"], "float32")
    assert sample_check.difference(sample_check.run(model, sample), expected) < 1e-5
    # Forecasts are streamed elsewhere in tests/models/forecasting.
    if BACKEND == "torch" or not isinstance(model, SSMForecaster):
        found = stream_difference(model, rng)
        most = 1e-3 if isinstance(model, SSMForecaster) else 1e-4
        assert "streaming" not in document if found is None else found < most
    if BACKEND == "torch":
        assert "int8" in document
        assert is_small(difference_in_eight_bits(model, sample), model)


@pytest.mark.once("torch")
def test_the_table_says_what_the_presets_say():
    rows = presets.read_results()
    for name, info in ALL.items():
        own = [row for row in rows if row["name"] == name]
        entry = info["scores"][0]
        values = results.scores(own)[own[0]["metric"]]
        assert entry["metric"].startswith(own[0]["metric"])
        assert next(iter(values.values())) == pytest.approx(entry["value"], abs=5e-5)
        seed = str(info["recipe"]["seed"])
        assert own[0]["seed"] == seed and own[0]["command"] == entry["command"]
        assert int(own[0]["parameters"]) == info["parameters"]
        for baseline in info.get("baselines", []):
            assert any(row["system"] == baseline["system"] for row in rows)


@pytest.mark.once("torch")
def test_sizes_of_the_files():
    sizes = {}
    for name in ALL:
        directory = registry.zoo() / name
        weights = sum(path.stat().st_size for path in directory.glob("*.weights.h5"))
        assert weights <= LARGEST, name
        assert all(path.stat().st_size < 60_000 for path in directory.glob("*.png")), name
        sizes[name] = sum(path.stat().st_size for path in directory.iterdir())
    assert sum(sizes.values()) < LARGEST_OF_ALL, sizes


@pytest.mark.once("torch")
def test_every_line_of_the_table_is_read():
    with open(registry.zoo() / presets.RESULTS_FILE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == results.COLUMNS == tuple(presets.read_results()[0])
    keys = [(row["name"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys) and all(row["command"] for row in rows)
    assert rows == results.sorted_rows(rows)
