"""Scores, perplexity and bits per byte, beside sums by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.models import SequencePreprocessor
from keras_ssm.models.language import token_costs
from tests.backend_tools import BACKEND, to_numpy
from tests.models.language.small_lm import language_model, nats


@pytest.fixture(scope="module")
def model():
    return language_model(num_layers=1 if BACKEND != "torch" else 2)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(2).integers(7, size=(2, 6))


@pytest.mark.once("torch")
def test_scores_are_logits_and_costs_through_an_interception(model, ids):
    mask = np.arange(6) < np.array([[6], [4]])
    np.testing.assert_allclose(to_numpy(model.score(ids)), to_numpy(model(ids)), rtol=1e-5)
    seen = []

    def intercept(x, i):
        seen.append(i)
        return x * 0 if i == 0 else x

    nothing = to_numpy(model.score(ids, layer_intercept_fn=intercept))
    assert seen == [-1, 0, 1]
    assert np.ptp(nothing[0], axis=0).max() < 1e-5  # every step the same
    losses = to_numpy(model.score(ids[:, :-1], mask[:, 1:], "loss", target_ids=ids[:, 1:]))
    np.testing.assert_allclose(losses[0], nats(model, ids[0]), rtol=1e-4)
    np.testing.assert_allclose(losses[1, :3], nats(model, ids[1, :4]), rtol=1e-4)
    assert (losses[1, 3:] == 0).all()


@pytest.mark.once("torch")
def test_scores_without_what_they_need_are_refused(model, ids):
    with pytest.raises(ValueError, match="scoring_mode='loss' compares"):
        model.score(ids, scoring_mode="loss")
    with pytest.raises(ValueError, match="`scoring_mode` must be"):
        model.score(ids, scoring_mode="sum")
    with pytest.raises(ValueError, match="need a `preprocessor`"):
        model.score("abc")


@pytest.mark.only("torch")
def test_costs_reach_the_embeddings(model, ids):
    found = {}

    def intercept(x, i):
        if i == -1:
            found["x"] = x = x.detach().requires_grad_()
        return x

    model.score(
        ids[:, :-1], None, "loss", layer_intercept_fn=intercept, target_ids=ids[:, 1:]
    ).sum().backward()
    assert found["x"].grad.shape == (2, 5, 4) and found["x"].grad.abs().min() > 0


def test_perplexity_of_rows_is_exact_in_pieces_of_any_size(model, monkeypatch):
    rng = np.random.default_rng(3)
    rows = [rng.integers(7, size=n) for n in (21, 1, 17, 12)]
    expected = np.exp(np.concatenate([nats(model, row) for row in rows]).mean())
    monkeypatch.setattr(token_costs, "LOGITS", 16 * 7 * 2)  # pieces of 16
    assert model.perplexity(rows, batch_size=2) == pytest.approx(expected, rel=1e-6)
    if BACKEND == "torch":  # no other size is compiled for it
        carried = model.perplexity(rows, window=5, carry_state=True)
        assert carried == pytest.approx(expected, rel=1e-6)


@pytest.mark.once("torch")
def test_windows_start_from_a_zero_state_and_predict_every_token_once(model):
    row = np.random.default_rng(4).integers(7, size=23)
    costs = [nats(model, row[i : i + 6]) for i in range(0, 22, 5)]
    assert sum(map(len, costs)) == 22
    expected = np.exp(np.concatenate(costs).mean())
    assert model.perplexity(row, window=5) == pytest.approx(expected, rel=1e-6)
    assert model.perplexity(row.tolist(), window=5, batch_size=1) == pytest.approx(expected, 1e-6)
    padded = {"token_ids": np.pad(row, (3, 2))[None], "padding_mask": np.zeros((1, 28), bool)}
    padded["padding_mask"][:, 3:-2] = True
    assert model.perplexity(padded, window=5) == pytest.approx(expected, rel=1e-6)


@pytest.mark.once("torch")
def test_memory_does_not_grow_with_a_text(model, monkeypatch):
    sizes = []
    logits = type(model).logits

    def counted(self, hidden):
        sizes.append(tuple(hidden.shape))
        return logits(self, hidden)

    monkeypatch.setattr(type(model), "logits", counted)
    monkeypatch.setattr(token_costs, "LONGEST", 64)
    model.perplexity(np.random.default_rng(5).integers(7, size=300))
    assert set(sizes) == {(1, 64, 4)} and len(sizes) == 5


@pytest.mark.once("torch")
def test_bits_per_byte_of_texts_and_ids():
    model = language_model(preprocessor=SequencePreprocessor(tokens=True), vocabulary_size=256)
    texts = ["state", "späces"]
    rows = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    bits = np.concatenate([nats(model, row) for row in rows]).sum() / np.log(2)
    assert model.bits_per_byte(texts) == pytest.approx(bits / (4 + 6), rel=1e-6)
    assert model.bits_per_byte(rows, num_bytes=10) == pytest.approx(bits / 10, rel=1e-6)
    assert model.perplexity("state") == pytest.approx(np.exp(nats(model, rows[0]).mean()), 1e-6)
    with pytest.raises(ValueError, match="`num_bytes` must say"):
        model.bits_per_byte(rows)
    with pytest.raises(ValueError, match="at least two tokens"):
        model.perplexity(rows[0][:1])
    for nothing in ([], 5, np.zeros((0, 4), int)):
        with pytest.raises(ValueError, match="`data` must be texts"):
            model.perplexity(nothing)
    with pytest.raises(ValueError, match="must lie from 0 to 255"):
        model.perplexity(np.array([1, 256]))


@pytest.mark.once("torch")
def test_after_training_the_new_weights_count(ids):
    model = language_model(S4D(state_dim=4, seed=0))
    model.compile("sgd", document_end_ids=3)
    before = model.perplexity(ids)
    assert before == pytest.approx(np.exp(model.evaluate(ids, verbose=0)[0]), rel=1e-5)
    model.optimizer.learning_rate = 0.1
    model.fit(ids, verbose=0)
    after = model.perplexity(ids)
    assert after < before
    assert after == pytest.approx(np.exp(model.evaluate(ids, verbose=0)[0]), rel=1e-5)
    model.backbone.token_embedding.embeddings.assign(ops.zeros((7, 4)))
    assert model.perplexity(ids) == pytest.approx(7, rel=1e-5)
    keras.models.clone_model(model)  # the kept programs are no part of the model
