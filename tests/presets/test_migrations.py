"""Frozen presets: format 1 loads for good, and names that changed since are brought up to date."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_ssm import presets
from keras_ssm.hub import card
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.presets.migrations import Migration
from tests.backend_tools import relative_error
from tests.small_preset import X, make_model

pytestmark = [pytest.mark.eager, pytest.mark.once("torch")]

# Of the preset "classifier_preprocessor", for two texts.
PREDICTED = [[0.19050208, 0.09537496], [1.3294276, 0.74307925]]

FROZEN = Path(__file__).parents[1] / "golden" / "presets-frozen"

# Migrations for the preset "renamed", whose classes, arguments and attributes had other names.
RENAMES = (
    Migration(
        classes={"Block": "SSMBlock", "DiagonalS4": "S4D", "Backbone": "Stack"},
        arguments={"Stack": {"depth": "num_layers"}},
        weights={"block": "ssm_block", "projection": "dense"},
    ),
    Migration(
        classes={"Classifier": "SSMClassifier", "Stack": "SSMBackbone"},
        arguments={"SSMBackbone": {"ssm": "mixer"}, "SSMClassifier": {"classes": "num_classes"}},
        weights={"ssm": "mixer"},
    ),
    *presets.migrations.MIGRATIONS,
)


def content(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def outputs_of(model, directory):
    sample = presets.read(directory)["sample"]
    found = keras.ops.convert_to_numpy(model(np.array(sample["inputs"], "float32")))
    return relative_error(found, np.array(sample["outputs"]))


def test_format_1_loads():
    directory = FROZEN / "format_1"
    assert presets.read(directory)["format_version"] == 1
    for load in (SSMClassifier.from_preset, load_model):
        assert outputs_of(load(directory), directory) < 1e-5
    assert SSMBackbone.from_preset(directory).num_layers == 1
    assert SequencePreprocessor.from_preset(directory).scale == 0.5


def test_a_preprocessor_of_the_former_name_loads():
    directory = FROZEN / "classifier_preprocessor"
    text = ["some bytes", "ab"]
    for load in (SSMClassifier.from_preset, load_model):
        model = load(directory)
        assert type(model.preprocessor) is SequencePreprocessor
        assert relative_error(model.predict(text, verbose=0), PREDICTED) < 1e-5
    preprocessor = SequencePreprocessor.from_preset(directory)
    assert preprocessor.tokens and preprocessor.sequence_length == 8


@pytest.fixture
def renames(monkeypatch):
    monkeypatch.setattr(presets.migrations, "MIGRATIONS", RENAMES)


def test_old_names_are_brought_up_to_date(renames):
    directory = FROZEN / "renamed"
    before = content(directory)
    for load in (SSMClassifier.from_preset, load_model):
        assert outputs_of(load(directory), directory) < 1e-5
    assert SSMBackbone.from_preset(directory).num_layers == 1
    assert "SSMClassifier.from_preset" in card(directory, "me/renamed")
    assert content(directory) == before


def test_without_the_migration_they_are_refused():
    with pytest.raises(ValueError, match=r"Received: class 'keras_ssm>Backbone'"):
        SSMClassifier.from_preset(FROZEN / "renamed")


def test_what_is_saved_has_the_new_version_and_no_migration(renames, tmp_path):
    make_model().save_to_preset(tmp_path / "new")
    document = presets.read(tmp_path / "new")
    assert document["format_version"] == len(RENAMES) + 1 and not presets.migrations.pending(
        document
    )
    with presets.migrated(tmp_path / "new", document, document["files"]) as directory:
        assert directory == tmp_path / "new"
    assert outputs_of(SSMClassifier.from_preset(tmp_path / "new"), tmp_path / "new") < 1e-5


def test_shards_and_plain_presets_are_migrated_too(renames, tmp_path):
    directory = Path(shutil.copytree(FROZEN / "renamed", tmp_path / "plain"))
    expected = SSMClassifier.from_preset(directory).predict(X, verbose=0)
    (directory / "preset.json").unlink()
    with pytest.warns(UserWarning, match=r"no preset\.json"):
        model = SSMClassifier.from_preset(directory)
    assert relative_error(model.predict(X, verbose=0), expected) < 1e-6
    (directory / "model.weights.h5").rename(directory / "model_00000.weights.h5")
    keys = ["/layers/block/ssm/vars", "/layers/projection/vars", "/block_1/vars"]
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, "model_00000.weights.h5")}
    (directory / "model.weights.json").write_text(json.dumps(index))
    with presets.migrated(directory, None, presets.files_read_on_load(directory)) as copy:
        index = json.loads((copy / "model.weights.json").read_text())
    assert list(index["weight_map"]) == [
        "/layers/ssm_block/mixer/vars",
        "/layers/dense/vars",
        "/ssm_block_1/vars",
    ]


def test_the_hubs_copy_of_an_old_preset_stays_as_it_was(renames, hub):
    directory = FROZEN / "renamed"
    hub.add("me/renamed", content(directory))
    assert outputs_of(SSMClassifier.from_preset("hf://me/renamed"), directory) < 1e-5
    assert content(presets.resolve("hf://me/renamed")) == content(directory)
