"""Language models with low-rank updates, with integers for weights, and as presets."""

import copy
import json

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm.layers import S4D, Mamba2
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from tests.backend_tools import BACKEND, to_numpy
from tests.models.language.small_lm import backbone, language_model

once = pytest.mark.once("torch")
twice = pytest.mark.once("torch", "tensorflow")


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(64, size=(4, 12))


def rounding(found, expected):
    """Root mean square of the error over that of the logits."""
    found, expected = to_numpy(found), to_numpy(expected)
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize("tied", [pytest.param(True, marks=twice), pytest.param(False, marks=once)])
def test_int8_with_its_error_stated(tied, ids, tmp_path):
    model = language_model(tied=tied, vocabulary_size=64, hidden_dim=32, num_layers=1)
    expected = model(ids)
    model.quantize("int8")
    found = model(ids)
    assert 0.001 < rounding(found, expected) < 0.02
    kinds = {layer.name for layer in model._flatten_layers() if layer.quantization_mode}
    named = {"token_embedding", "in_proj", "x_proj", "dt_proj", "out_proj"}
    assert kinds == named | (set() if tied else {"head"})
    kept = {str(v.dtype) for v in model.weights if v.path.endswith(("A_log", "D", "dt_bias"))}
    assert kept == {"float32"}
    logits, _ = model.step(ids[:, 0], model.get_initial_state(4))
    np.testing.assert_allclose(to_numpy(logits), to_numpy(found)[:, 0], atol=1e-5)
    if BACKEND != "torch":  # files do not depend on the backend
        return
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.saving.load_model(tmp_path / "model.keras"),
        SSMCausalLM.from_preset(tmp_path / "preset"),
    ):
        np.testing.assert_array_equal(to_numpy(loaded(ids)), to_numpy(found))


@once
@pytest.mark.parametrize("tied", [True, False])
def test_low_rank_updates_alone_train(tied, ids, tmp_path):
    model = language_model(tied=tied, vocabulary_size=64)
    fresh = copy.deepcopy(model)
    with pytest.raises(ValueError, match="`target_layer_names` must name"):
        model.enable_lora(2, ["query"])
    with pytest.raises(ValueError, match=r"a list of names. Received: target_layer_names='x_proj'"):
        model.enable_lora(2, "x_proj")
    with pytest.raises(ValueError, match="target_layer_names=None"):  # no projections
        language_model(S4D(state_dim=4), tied).enable_lora(2)
    assert len(model.trainable_variables) > 12
    model.enable_lora(2)
    adapted = {tuple(v.path.split("/")[-2:]) for v in model.trainable_variables}
    parts = ("lora_kernel_a", "lora_kernel_b")
    assert adapted == {(n, p) for n in ("in_proj", "x_proj", "out_proj") for p in parts}
    model.fit(ids, verbose=0)
    expected = to_numpy(model(ids))
    model.save_lora_weights(tmp_path / "text.lora.h5")
    fresh.load_lora_weights(tmp_path / "text.lora.h5")
    model.save(tmp_path / "model.keras")
    for one in (fresh, copy.deepcopy(model), keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(to_numpy(one(ids)), expected, atol=1e-5)
    model = language_model(Mamba2(state_dim=4, head_dim=4, seed=0), tied)
    model.enable_lora(1)
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"in_proj", "out_proj"}


@once
def test_a_preset_says_what_it_is_and_loads_as_its_parts(ids, tmp_path):
    model = language_model(vocabulary_size=64)
    model.save_to_preset(tmp_path / "lm", info={"name": "lm"})
    document = keras_ssm.presets.read(tmp_path / "lm")
    assert (document["task"], document["pipeline_tag"]) == ("SSMCausalLM", "text-generation")
    assert np.shape(document["sample"]["outputs"]) == (1, 4, 64)
    card = keras_ssm.hub.card(tmp_path / "lm", "me/lm")
    assert "SSMCausalLM.from_preset" in card and "pipeline_tag: text-generation" in card
    assert "Selective State Spaces" in card and "may be false" in card
    loaded = SSMCausalLM.from_preset(tmp_path / "lm")
    np.testing.assert_array_equal(to_numpy(loaded(ids)), to_numpy(model(ids)))
    classifier = SSMClassifier.from_preset(tmp_path / "lm", num_classes=2)
    np.testing.assert_allclose(
        to_numpy(classifier.backbone(ids)), to_numpy(model.backbone(ids)), atol=1e-6
    )
    with pytest.raises(ValueError, match="not time-invariant"):
        SSMCausalLM.from_preset(tmp_path / "lm", step_scale=2.0)
    lines = []
    loaded.summary(print_fn=lines.append)
    assert "token_embedding" in "".join(lines)
    weights = loaded.backbone.token_embedding.embeddings
    weights.assign(to_numpy(weights)[::-1].copy())
    loaded.save_to_preset(tmp_path / "other")
    document = keras_ssm.presets.read(tmp_path / "other") | {"sample": document["sample"]}
    (tmp_path / "other" / "preset.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="outputs that were recorded"):
        SSMCausalLM.from_preset(tmp_path / "other")


@once
def test_a_backbone_becomes_a_language_model_and_an_s4d_has_a_step_scale(ids, tmp_path):
    one = backbone(S4D(state_dim=4, seed=0), vocabulary_size=64)
    one.save_to_preset(tmp_path / "backbone")
    tied = SSMCausalLM.from_preset(tmp_path / "backbone", step_scale=2.0)
    assert float(to_numpy(tied.step_scale)) == 2.0
    tied.step_scale = 1.0
    hidden = to_numpy(one(ids))
    expected = hidden @ to_numpy(one.token_embedding.embeddings).T
    np.testing.assert_allclose(to_numpy(tied(ids)), expected, atol=1e-5)
    own = SSMCausalLM.from_preset(tmp_path / "backbone", tie_embeddings=False)
    assert own.head.kernel.shape == (4, 64)
    assert isinstance(SSMBackbone.from_preset(tmp_path / "backbone"), SSMBackbone)
