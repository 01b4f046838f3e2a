"""Language models of Mamba and Mamba-2 against the recordings of whole models."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DeltaNet, Mamba, Mamba2
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from keras_ssm.optimizers import ssm_optimizer
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.mamba_recordings import CASES, model_of, recorded

# Largest error over largest value, for outputs and for gradients: float64, float32.
EXACT, SINGLE = (1e-11, 1e-10), (2e-5, 1e-4)
DTYPES = {"torch": ["float64", "float32"], "tensorflow": ["float64"], "jax": ["float32"]}[BACKEND]


@pytest.fixture(params=CASES)
def record(request):
    return recorded(request.param)


@pytest.fixture(params=DTYPES)
def tolerances(request):
    """The model is made in this dtype."""
    keras.config.set_dtype_policy(request.param)
    return EXACT if request.param == "float64" else SINGLE


def assert_close(found, expected, tolerance):
    assert relative_error(to_numpy(found), expected) < tolerance


def assert_states(states, record, prefix, tolerance):
    for i, state in enumerate(states):
        assert_close(state["ssm"], record[f"{prefix}/ssm_{i}"], tolerance)
        conv = np.moveaxis(record[f"{prefix}/conv_{i}"], 1, 2)[:, 1:]
        assert_close(state["conv"], conv, tolerance)


def test_hidden_states_logits_loss_and_gradients(record, tolerances):
    model, named = model_of(record)
    ids = record["input_ids"].astype("int32")
    values, slopes = tolerances
    seen = {}

    def keep(x, i):
        seen[i] = x
        return x

    logits = model.score(ids, layer_intercept_fn=keep)
    assert_close(seen[-1], record["embeddings"], values)
    for i in range(record.layers):
        assert_close(seen[i], record[f"hidden_{i}"], values)
    assert_close(model.backbone(ids), record[f"hidden_{record.layers}"], values)
    assert_close(logits, record["logits"], values)

    def loss(nothing):
        # Keras' loss is not used: on PyTorch its mean is rounded to float32.
        costs = model.score(ids[:, :-1], scoring_mode="loss", target_ids=ids[:, 1:])
        return backend.mean(costs, axis=(0, 1)) + ops.cast(0 * nothing[0], costs.dtype)

    value, found, _ = gradients(loss, model, np.zeros(1, "float32"), compile="loops")
    assert relative_error(value, record["loss"]) < values
    by_path = {v.path: v for v in model.trainable_variables}
    by_path |= {path.split("/", 1)[-1]: v for path, v in by_path.items()}
    ours = {id(by_path[key]): gradient for key, gradient in found.items()}
    for name, (weight, function) in named.items():
        expected = function(record[f"grad/{name}"])
        assert relative_error(ours[id(weight)], expected) < slopes, name


@pytest.mark.once("torch")
def test_what_evaluate_and_perplexity_say_is_the_loss_of_the_recording(record):
    keras.config.set_dtype_policy("float32")
    model, _ = model_of(record)
    ids = record["input_ids"]
    loss = float(record["loss"])
    assert model.evaluate(ids, verbose=0)[0] == pytest.approx(loss, rel=1e-5)
    assert model.perplexity(ids) == pytest.approx(np.exp(loss), rel=1e-5)


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", ["left", "right"])
def test_padded_rows_are_trimmed_rows(record, kind, tolerances):
    model, _ = model_of(record)
    ids = record["input_ids"][1:].astype("int32")
    mask = record[f"mask_{kind}"][1:].astype(bool)
    logits, states = model({"token_ids": ids, "padding_mask": mask}, return_state=True)
    assert_close(to_numpy(logits)[mask], record[f"trimmed_{kind}/logits"][0], tolerances[0])
    assert_states(states, record, f"trimmed_{kind}", tolerances[0])


@pytest.mark.once("torch", "tensorflow")
def test_steps_go_on_from_a_prompt(record, tolerances):
    model, _ = model_of(record)
    tolerance = tolerances[0]
    logits, states = model(record["input_ids"].astype("int32"), return_state=True)
    assert_close(logits[:, -1], record["prefill_logits"], tolerance)
    assert_states(states, record, "prefill", tolerance)
    for i in range(3):
        logits, states = model.step(record["extra_ids"][:, i].astype("int32"), states)
        assert_close(logits, record["full_logits"][:, i], tolerance)
    if np.isinf(record.dt_limit[1]):  # transformers forgets the limit in its steps
        assert_states(states, record, "step3", tolerance)
    _, states = model(record["input_ids"][:, :1].astype("int32"), return_state=True)
    assert_states(states[:1], record, "prefill1", tolerance)


@pytest.mark.once("torch")  # on other backends a language model trains: test_lm_training.py
@pytest.mark.parametrize("kind", [Mamba, Mamba2, DeltaNet])
def test_a_classifier_of_it_learns_and_survives_a_file(kind, tmp_path, rng):
    settings = {Mamba: {"state_dim": 8}, Mamba2: {"state_dim": 8, "head_dim": 4}}
    settings[DeltaNet] = {"heads": 2, "head_dim": 4, "householders": 2, "gated": True}
    mixer = kind(seed=0, **settings[kind])
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
    assert adapted == {"in_proj", "out_proj"} | ({"x_proj"} if kind is Mamba else set())
