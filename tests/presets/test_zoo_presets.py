"""Every preset of the package: its recorded outputs, and the same answer from a stream."""

import csv

import numpy as np
import pytest

import keras_ssm
from keras_ssm import presets
from keras_ssm.models import SSMCausalLM, SSMForecaster
from keras_ssm.models.saving import sample_check
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.presets import registry, results
from tests.backend_tools import BACKEND, relative_error

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
    if isinstance(model, SSMForecaster):
        if BACKEND == "torch":  # the others stream forecasts in tests/models/forecasting
            streams_a_forecast(model, rng)
    elif "bidirectional" in str(model.backbone.get_config()["mixer"]) and not streams(model):
        assert "streaming" not in document
    elif not isinstance(model, SSMCausalLM):
        streams_an_answer(model, rng)
    if BACKEND == "torch" and "int8" in document:
        logits = sample_check.run(model, sample)
        model.quantize("int8")
        rounded = sample_check.run(model, sample)
        assert 0 < sample_check.difference(rounded, logits) < 0.2


def streams(model):
    try:
        model.stream()
    except ValueError:
        return False
    return True


def streams_an_answer(model, rng):
    x = rng.integers(0, 17, size=(40, model.backbone.input_dim or 1)).astype("float32")
    expected = model.predict(x[None], verbose=0)
    found = np.asarray(model.stream()(x))
    if not model.has_step_outputs:
        found = found[:, -1]
    assert relative_error(found, expected) < 1e-4


def streams_a_forecast(model, rng):
    variables = len(model.fitted["center"][0])
    rows = rng.normal(size=(model.lookback + 8, variables))
    expected = model.predict(rows)
    if len(model.fitted["series"]) == 1:
        found = model.stream()(rows)[0, -1]
    else:  # units of a series are its own, and come from its first rows
        model.predict(rows[:-3])
        found = model.update(rows[-3:])
    assert found.shape == expected.shape and relative_error(found, expected) < 1e-3


@pytest.mark.once("torch")
def test_the_table_says_what_the_presets_say():
    rows = presets.read_results()
    for name, info in ALL.items():
        own = [row for row in rows if row["name"] == name]
        entry = info["scores"][0]
        values = results.scores(own)[own[0]["metric"]]
        assert entry["metric"].startswith(own[0]["metric"])
        assert next(iter(values.values())) == pytest.approx(entry["value"], abs=5e-5)
        if "recipe" in info:
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
