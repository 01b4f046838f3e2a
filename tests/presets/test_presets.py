"""Presets on disk and from the Hub: complete and unaltered, or refused."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm import presets
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, relative_error
from tests.small_preset import INFO, X, alter, make_model, run_python, truncate

# Files alone, but for those that another backend wrote.
pytestmark = [pytest.mark.eager, pytest.mark.once("torch")]


@pytest.mark.everywhere
def test_saved_and_loaded(saved, preset):
    for source in (preset, str(preset)):
        model = SSMClassifier.from_preset(source)
        assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6
    backbone = SSMBackbone.from_preset(preset)
    assert backbone.count_params() == model.backbone.count_params()
    assert (
        relative_error(backbone(0.5 * X), keras.ops.convert_to_numpy(model.backbone(0.5 * X))) == 0
    )
    assert SequencePreprocessor.from_preset(preset).scale == 0.5


def test_preset_json(preset, saved):
    document = presets.verify(preset)
    assert document["task"] == "SSMClassifier" and document["system"] == "S4D"
    assert document["parameters"] == make_model().count_params()
    assert document["licences"] == INFO["licences"] and document["scores"] == INFO["scores"]
    assert "model.weights.h5" in document["files"] and "task.weights.h5" in document["files"]
    sample = {k: np.array(v, "float32") for k, v in document["sample"].items()}
    model = SSMClassifier.from_preset(preset)
    outputs = keras.ops.convert_to_numpy(model(sample["inputs"]))
    assert relative_error(outputs, sample["outputs"]) < 1e-5


def test_a_new_head_and_random_weights(preset):
    model = SSMClassifier.from_preset(preset, num_classes=7)
    assert model.predict(X, verbose=0).shape == (3, 7)
    assert SSMClassifier.from_preset(preset, load_weights=False).count_params()


@pytest.mark.parametrize("damage", [Path.unlink, truncate, alter], ids=["gone", "cut", "bad"])
@pytest.mark.parametrize(
    "name", ["config.json", "task.json", "preprocessor.json", "model.weights.h5", "task.weights.h5"]
)
def test_damage_is_refused(preset, name, damage):
    damage(preset / name)
    for load in (SSMClassifier.from_preset, SSMBackbone.from_preset):
        with pytest.raises(ValueError, match="Received") as error:
            load(preset)
        assert name in str(error.value)


def edit(preset, **changes):
    path = preset / "preset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_other_formats_are_refused(preset):
    edit(preset, format_version=presets.format_version() + 1)
    with pytest.raises(ValueError, match="newer keras_ssm"):
        SSMClassifier.from_preset(preset)
    edit(preset, format_version="1.0")
    with pytest.raises(ValueError, match=r"format_version='1.0'"):
        SSMClassifier.from_preset(preset)
    edit(preset, format_version=0)
    with pytest.raises(ValueError, match=r"format_version=0"):
        SSMClassifier.from_preset(preset)
    files = presets.preset_files.read(preset)["files"]
    edit(preset, format_version=1, files={k: v for k, v in files.items() if "task.w" not in k})
    with pytest.raises(ValueError, match=r"must list \['task.weights.h5'\]"):
        SSMClassifier.from_preset(preset)
    edit(preset, files={**files, "../outside": "0"})
    with pytest.raises(ValueError, match="outside"):
        SSMClassifier.from_preset(preset)
    (preset / "preset.json").write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        SSMClassifier.from_preset(preset)


@pytest.mark.parametrize(
    "facts",
    [
        {"data": "digits"},
        {"scores": {"value": 1}},
        {"scores": ["99 %"]},
        {"scores": [{"value": 0.5, "count": 0}]},
        {"scores": [{"value": 1.5, "count": 8}]},
        {"name": 3},
    ],
    ids=str,
)
def test_facts_of_another_type_are_refused(preset, saved, facts):
    with pytest.raises(ValueError, match=r"facts of preset.*Received"):
        make_model().save_to_preset(preset, info=facts)
    assert presets.verify(preset) == presets.read(saved[0])
    edit(preset, **facts)
    with pytest.raises(ValueError, match=r"facts of preset.*Received"):
        SSMClassifier.from_preset(preset)


def test_unlisted_files_are_refused(preset):
    (preset / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json"):
        SSMClassifier.from_preset(preset)


def test_unknown_names():
    for name in ("no_such_preset", "hf://not/a/name", Path("s4d_digits_elsewhere")):
        with pytest.raises(ValueError, match="Received"):
            SSMClassifier.from_preset(name)


def test_saving_over_a_preset_keeps_the_card_and_drops_the_rest(preset):
    (preset / "README.md").write_text("a card")
    make_model().backbone.save_to_preset(preset)
    assert (preset / "README.md").read_text() == "a card"
    assert not (preset / "task.weights.h5").exists()
    assert SSMBackbone.from_preset(preset).count_params()
    assert [p.name for p in preset.parent.iterdir()] == [preset.name]


def test_a_failed_save_changes_nothing(preset, saved, monkeypatch):
    model = make_model()
    monkeypatch.setattr(type(model), "record_sample", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_to_preset(preset)
    with pytest.raises(ZeroDivisionError):
        model.save_to_preset(preset.parent / "new")
    assert [p.name for p in preset.parent.iterdir()] == [preset.name]
    model = SSMClassifier.from_preset(preset)
    assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6


MAKE = """
import sys, numpy as np, keras, keras_ssm
from keras_ssm.models import SSMBackbone, SSMClassifier
x = np.random.default_rng(0).standard_normal((3, 9, 2)).astype("float32")
keras.utils.set_random_seed(1)
backbone = SSMBackbone(
    keras_ssm.layers.S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, input_dim=2
)
model = SSMClassifier(backbone, num_classes=3)
model.fit(x, np.arange(3), epochs=2, verbose=0)
model.save("{out}/model.keras")
model.save_to_preset("{out}/preset")
model.backbone.step_scale = 1.0
moments = [np.asarray(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
np.savez("{out}/expected.npz", model.predict(x, verbose=0), *moments)
"""


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("jax", marks=pytest.mark.once("torch")),
        pytest.param("tensorflow", marks=pytest.mark.once("jax")),
        pytest.param("torch", marks=pytest.mark.once("tensorflow")),
    ],
)
def test_files_of_every_backend_load_here(other, tmp_path):
    """Round in a ring each time, all nine pairs in `make test-all`; optimizer included."""
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"} if other == "jax" else {}
    result = run_python(MAKE.format(out=tmp_path), KERAS_BACKEND=other, **flags)
    assert result.returncode == 0, result.stderr[-2000:]
    stored = np.load(tmp_path / "expected.npz")
    expected, *moments = (stored[key] for key in stored.files)
    for model in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMClassifier.from_preset(tmp_path / "preset"),
    ):
        assert relative_error(model.predict(X, verbose=0), expected) < 2e-5
    model = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(model.optimizer, keras.optimizers.MultiOptimizer)
    for found, moment in zip(model.optimizer.variables, moments, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), moment, rtol=1e-6)
    if BACKEND == "jax" and other == "tensorflow":
        assert model.jit_compile
    model.fit(X, np.arange(3), verbose=0)
    assert np.isfinite(model.predict(X, verbose=0)).all()


def test_list_presets():
    found = keras_ssm.list_presets()
    assert "s4d_digits" in found
    for info in found.values():
        assert info["scores"] and info["licences"] and info["data"]
