"""Presets on disk and from the Hub: complete and unaltered, or refused."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm import presets
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error
from tests.small_preset import INFO, X, alter, make_model, truncate

# Tests of files, which no backend changes, except for files that another backend wrote.
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


def test_list_presets():
    found = keras_ssm.list_presets()
    assert "s4d_digits" in found
    for info in found.values():
        assert info["scores"] and info["licences"] and info["data"]
