"""Presets with weights in 16 bits: half as large, and found by name on the Hub."""

import shutil

import h5py
import numpy as np
import pytest

import keras_ssm
from keras_ssm import hub as publishing
from keras_ssm import presets
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.models.saving import sample_check
from keras_ssm.presets import registry
from tests.backend_tools import relative_error, to_numpy
from tests.small_preset import INFO, X, make_model

pytestmark = pytest.mark.once("torch")


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, x: found.update({name: x[()]}) if hasattr(x, "dtype") else None
        )
    return found


def test_half_as_many_bytes_and_the_outputs_that_are_recorded(tmp_path):
    model = make_model()
    before = model.predict(X, verbose=0)
    model.save_to_preset(tmp_path / "whole", info=INFO)
    model.save_to_preset(tmp_path / "half", info=INFO, weights_dtype="float16")
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)
    for name in ("model.weights.h5", "task.weights.h5"):
        whole, half = (arrays(tmp_path / kind / name) for kind in ("whole", "half"))
        assert whole.keys() == half.keys() and whole
        for key, value in whole.items():
            assert half[key].dtype == "float16" and value.dtype == "float32"
            np.testing.assert_array_equal(half[key], value.astype("float16"))
    document = presets.verify(tmp_path / "half")
    loaded = SSMClassifier.from_preset(tmp_path / "half")
    assert {v.dtype for v in loaded.weights} == {"float32"}
    assert sample_check.compare(loaded, document["sample"], "half") < 1e-6
    assert 0 < relative_error(loaded.predict(X, verbose=0), before) < 5e-3
    model.backbone.save_to_preset(tmp_path / "backbone", weights_dtype="float16")
    assert SSMBackbone.from_preset(tmp_path / "backbone").count_params()


def test_what_16_bits_do_not_hold(tmp_path):
    model = make_model()
    model.head.bias.assign([1.0, 1e5, 2.0])
    with pytest.raises(ValueError, match=r"hold all weights. Received: .*bias', beyond 65,504"):
        model.save_to_preset(tmp_path / "small", weights_dtype="float16")
    with pytest.raises(ValueError, match=r"weights_dtype.*Received: weights_dtype='int4'"):
        model.save_to_preset(tmp_path / "small", weights_dtype="int4")
    assert not (tmp_path / "small").exists() and to_numpy(model.head.bias)[1] == 1e5


def test_weights_of_the_hub_by_the_name_that_the_package_knows(hub, tmp_path, monkeypatch):
    """As a preset that is too large for the package: its `preset.json` and card are there."""
    make_model().save_to_preset(tmp_path / "small", info=INFO, weights_dtype="float16")
    (tmp_path / "zoo" / "small").mkdir(parents=True)
    done = publishing.publish(tmp_path / "small", "keras-ssm/small")
    for name in (presets.PRESET_FILE, presets.CARD_FILE):
        text = hub.repositories["keras-ssm/small"].files()[name]
        (tmp_path / "zoo" / "small" / name).write_bytes(text)
    shutil.rmtree(tmp_path / "small")
    monkeypatch.setattr(registry, "zoo", lambda: tmp_path / "zoo")
    assert done.commit and keras_ssm.list_presets()["small"]["source"] == "hub"
    assert SSMClassifier.from_preset("small").num_classes == 3
    directory = presets.resolve("small")
    assert directory.parts[-1] == done.commit
    found = arrays(directory / "model.weights.h5").values()
    assert {str(value.dtype) for value in found} == {"float16"}
