"""Stacks of Mamba and Mamba-2 blocks against the recordings of whole models."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Mamba, Mamba2
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from keras_ssm.optimizers import ssm_optimizer
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.mamba_recordings import CASES, backbone_of, recorded

EXACT = BACKEND != "jax"


@pytest.fixture(params=CASES)
def record(request):
    if EXACT:
        keras.config.set_dtype_policy("float64")
    return recorded(request.param)


def head(record, backbone):
    if record.config["tie_word_embeddings"]:
        return ops.transpose(ops.convert_to_tensor(backbone.encoder_layer.embeddings))
    weight = record.weights["lm_head.weight"].T
    return ops.convert_to_tensor(weight, dtype=backbone.compute_dtype)


def test_hidden_states_logits_and_gradients(record):
    backbone, named = backbone_of(record)
    ids = record["input_ids"].astype("int32")
    values, slopes = (1e-12, 1e-11) if EXACT else (2e-5, 1e-4)
    y = backbone.encoder_layer(ids)
    for i, block in enumerate(backbone.blocks):
        y = block(y)
        assert relative_error(to_numpy(y), record[f"hidden_{i}"]) < values
    final = backbone(ids)
    assert relative_error(to_numpy(final), record[f"hidden_{record.layers}"]) < values
    logits = backend.matmul(final, head(record, backbone))
    assert relative_error(to_numpy(logits), record["logits"]) < values

    targets = ops.one_hot(ids[:, 1:], logits.shape[-1], dtype=backbone.compute_dtype)

    def loss(nothing):
        logits = backend.matmul(backbone(ids), head(record, backbone))[:, :-1]
        logits = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        log_total = ops.log(ops.sum(ops.exp(logits), axis=-1))
        total = backend.mean(log_total - ops.sum(logits * targets, axis=-1), axis=(0, 1))
        return total + ops.cast(0 * nothing[0], total.dtype)

    value, found, _ = gradients(loss, backbone, np.zeros(1, "float32"), compile="loops")
    assert relative_error(value, record["loss"]) < values
    by_path = {v.path: v for v in backbone.trainable_variables}
    ours = {id(by_path[key]): gradient for key, gradient in found.items()}
    for name, (weight, function) in named.items():
        expected = function(record[f"grad/{name}"])
        assert relative_error(ours[id(weight)], expected) < slopes, name


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", ["left", "right"])
def test_padded_rows_are_trimmed_rows(record, kind):
    backbone, _ = backbone_of(record)
    ids = record["input_ids"][1:].astype("int32")
    mask = record[f"mask_{kind}"][1:].astype(bool)
    y, states = backbone({"token_ids": ids, "padding_mask": mask}, return_state=True)
    logits = to_numpy(backend.matmul(y, head(record, backbone)))[mask]
    tolerance = 1e-11 if EXACT else 1e-4
    assert relative_error(logits, record[f"trimmed_{kind}/logits"][0]) < tolerance
    for i, state in enumerate(states):
        expected = record[f"trimmed_{kind}/ssm_{i}"]
        assert relative_error(to_numpy(state["ssm"]), expected) < tolerance
        conv = np.moveaxis(record[f"trimmed_{kind}/conv_{i}"], 1, 2)[:, 1:]
        assert relative_error(to_numpy(state["conv"]), conv) < tolerance


@pytest.mark.once("torch", "tensorflow")
def test_steps_go_on_from_a_prompt(record):
    backbone, _ = backbone_of(record)
    _, states = backbone(record["input_ids"].astype("int32"), return_state=True)
    for i in range(3):
        token = record["extra_ids"][:, i].astype("int32")
        y, states = backbone.step(token, states)
        logits = to_numpy(backend.matmul(y, head(record, backbone)))
        expected = record["full_logits"][:, i]
        assert relative_error(logits, expected) < (1e-11 if EXACT else 1e-4)


@pytest.mark.parametrize("kind", [Mamba, pytest.param(Mamba2, marks=pytest.mark.once("torch"))])
def test_a_classifier_of_it_learns_and_survives_a_file(kind, tmp_path, rng):
    mixer = kind(state_dim=8, seed=0, **({"head_dim": 4} if kind is Mamba2 else {}))
    backbone = SSMBackbone(
        mixer,
        num_layers=2,
        hidden_dim=8,
        vocabulary_size=5,
        activation=None,
        gate=None,
        norm="rms",
        prenorm=True,
        final_norm="rms",
    )
    model = SSMClassifier(backbone, num_classes=2)
    model.compile(ssm_optimizer(3e-2, None))
    ids = rng.integers(2, 5, size=(128, 10))
    ids[:, 0] = rng.integers(2, size=128)
    history = model.fit(ids, ids[:, 0], epochs=12, batch_size=32, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < 0.1 < 0.5 < losses[0]
    expected = model.predict(ids[:4], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(ids[:4], verbose=0), expected, atol=1e-6)
    loaded.enable_lora(2)
    adapted = {v.path.split("/")[-2] for v in loaded.trainable_variables if "lora" in v.path}
    assert adapted == {"in_proj", "out_proj"}
