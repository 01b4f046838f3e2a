"""What a language model trains on: the next tokens, and which of them count."""

import keras
import keras_hub
import numpy as np
import pytest

from keras_ssm.layers import Mamba, Mamba2
from keras_ssm.models import SequencePreprocessor, SSMCausalLM
from keras_ssm.optimizers import ssm_optimizer
from tests.backend_tools import to_numpy
from tests.models.language.small_lm import backbone, language_model, nats

LENGTHS = (8, 3, 1, 6)


@pytest.fixture(scope="module")
def model():
    model = language_model(num_layers=1)
    model.compile("sgd")
    return model


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(7, size=(4, 8))


@pytest.fixture(scope="module")
def rows(ids):
    return [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]


@pytest.fixture(scope="module")
def batch(ids):
    return {"token_ids": ids, "padding_mask": np.arange(8) < np.array(LENGTHS)[:, None]}


@pytest.fixture(scope="module")
def logits(model, batch):
    return to_numpy(model(batch))


@pytest.fixture(scope="module")
def expected(model, rows, logits):
    """The mean over the tokens that count, by hand."""
    return np.concatenate([nats(model, *pair) for pair in zip(rows, logits, strict=True)]).mean()


def evaluate(model, *data, **kwargs):
    return model.evaluate(*data, verbose=0, return_dict=True, **kwargs)


def test_the_loss_is_the_mean_over_the_tokens_that_count(model, ids, batch, rows, logits, expected):
    found = evaluate(model, rows)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    right = (logits[:, :-1].argmax(-1) == ids[:, 1:])[batch["padding_mask"][:, 1:]]
    accuracy = right.mean()
    assert found["sparse_categorical_accuracy"] == pytest.approx(accuracy, rel=1e-5)
    assert evaluate(model, batch)["loss"] == pytest.approx(expected, rel=1e-5)
    # As a preprocessor of keras_hub has it: targets, and a mask of theirs for weights.
    x = {name: value[:, :-1] for name, value in batch.items()}
    weights = batch["padding_mask"][:, 1:]
    given = evaluate(model, x, ids[:, 1:], sample_weight=weights)
    assert given["loss"] == pytest.approx(expected, rel=1e-5)


def streams(batch, rows):
    import tensorflow as tf
    import torch

    class Halves(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (batch,)

    ragged = tf.ragged.constant([row.tolist() for row in rows])
    items = [(batch["token_ids"][i], batch["padding_mask"][i]) for i in range(4)]

    def collate(items):
        ids, mask = (torch.tensor(np.stack(part)) for part in zip(*items, strict=True))
        return {"token_ids": ids, "padding_mask": mask}

    return {
        "tf.data": tf.data.Dataset.from_tensor_slices(batch).batch(4),
        "ragged tf.data": tf.data.Dataset.from_tensors(ragged),
        "PyDataset": Halves(),
        "generator": iter([(rows,)]),
        "DataLoader": torch.utils.data.DataLoader(items, batch_size=4, collate_fn=collate),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "tf.data",
        *(
            pytest.param(kind, marks=pytest.mark.once("torch"))
            for kind in ("ragged tf.data", "PyDataset", "generator", "DataLoader")
        ),
    ],
)
def test_streams_without_targets_give_the_loss_of_arrays(kind, model, batch, rows, expected):
    found = evaluate(model, streams(batch, rows)[kind])
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.once("torch")
def test_predict_reads_every_token(model, batch, rows):
    whole = to_numpy(model(batch))
    for data in (rows, batch, streams(batch, rows)["tf.data"], streams(batch, rows)["generator"]):
        found = model.predict(data, verbose=0)
        assert found.shape == (4, 8, 7)
        np.testing.assert_allclose(found[batch["padding_mask"]], whole[batch["padding_mask"]], 1e-5)


@pytest.mark.once("torch")
def test_the_token_after_the_end_of_a_document_is_no_target(rows):
    model = language_model()
    model.compile("sgd", document_end_ids=[2, 5])
    counted = [nats(model, row)[~np.isin(row[:-1], [2, 5])] for row in rows]
    expected = np.concatenate(counted).mean()
    assert sum(map(len, counted)) < 14  # some targets do not count
    assert evaluate(model, rows)["loss"] == pytest.approx(expected, rel=1e-5)
    import tensorflow as tf

    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([row.tolist() for row in rows]))
    assert evaluate(model, ragged)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.once("torch")
def test_weights_of_tokens_and_rows(model, ids, rows):
    costs = [nats(model, row) for row in rows]
    by_row = [1.0, 0.5, 1.0, 2.0]
    found = evaluate(model, rows, sample_weight=np.array(by_row))["loss"]
    total = sum(w * cost.sum() for w, cost in zip(by_row, costs, strict=True))
    count = sum(w * len(cost) for w, cost in zip(by_row, costs, strict=True))
    assert found == pytest.approx(total / count, rel=1e-5)
    weights = [np.linspace(0, 1, len(row)) for row in rows]  # of each token as a target
    found = evaluate(model, rows, sample_weight=weights)["loss"]
    total = sum((w[1:] * cost).sum() for w, cost in zip(weights, costs, strict=True))
    assert found == pytest.approx(total / sum(w[1:].sum() for w in weights), rel=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param("float32", marks=pytest.mark.once("tensorflow")),
        pytest.param("mixed_bfloat16", marks=pytest.mark.once("jax")),
        pytest.param("mixed_float16", marks=pytest.mark.once("torch")),
    ],
)
def test_it_learns_to_count(dtype):
    model = SSMCausalLM(backbone(num_layers=1, hidden_dim=8, dtype=dtype, residual_dtype="float32"))
    model.compile(ssm_optimizer(0.03, global_clipnorm=1.0))
    start = np.arange(32)[:, None] % 7
    numbers = [row[: 4 + i % 5] for i, row in enumerate((start + np.arange(8)) % 7)]
    losses = model.fit(numbers, epochs=10, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < 0.5 < 1.5 < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mixer", [Mamba(state_dim=4, seed=0), Mamba2(state_dim=4, head_dim=4, seed=0)]
)
def test_500_steps_in_bfloat16_stay_finite_and_learn(mixer):
    keras.utils.set_random_seed(1)
    one = backbone(mixer, num_layers=2, hidden_dim=8, dtype="mixed_bfloat16")
    model = SSMCausalLM(one)
    model.compile(ssm_optimizer(0.01, 0.01, global_clipnorm=1.0))
    losses = []
    record = lambda batch, logs: losses.append(logs["loss"])  # the mean of the epoch so far
    counting = (np.random.default_rng(0).integers(7, size=(1000, 1)) + np.arange(12)) % 7
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=record)
    model.fit(counting, batch_size=2, verbose=0, callbacks=[keep])
    assert len(losses) == 500 and np.isfinite(losses).all()
    assert all(np.isfinite(to_numpy(weight)).all() for weight in model.weights)
    assert evaluate(model, counting[:64])["loss"] < 0.2 < losses[0]


class _Letters:
    """A tokenizer of the letters a to g, as keras_hub's are used."""

    start_token_id = end_token_id = 0
    pad_token_id = 6
    special_token_ids = [0]

    def __call__(self, texts):
        return [[ord(letter) - 96 for letter in text] for text in texts]


class _Preprocessor(keras_hub.models.CausalLMPreprocessor):
    def call(self, x, y=None, sample_weight=None, sequence_length=None):
        return self._call_python(x)


@pytest.mark.once("torch")
def test_texts_through_a_preprocessor(model):
    reader = _Preprocessor(_Letters(), sequence_length=6, add_start_token=True)
    reader.build(None)
    model = language_model(preprocessor=reader)
    texts = ["abc", "ab", "dcdd"]
    rows = [[0, 1, 2, 3, 0], [0, 1, 2, 0], [0, 4, 3, 4, 4, 0]]
    expected = np.concatenate([nats(model, np.array(row)) for row in rows]).mean()
    for data in (texts, np.array(texts), iter([texts]), [np.array(row) for row in rows]):
        assert evaluate(model, data)["loss"] == pytest.approx(expected, rel=1e-5)
    assert model.predict(texts, verbose=0).shape == (3, 6, 7)
    with pytest.raises(ValueError, match="bring their own targets"):
        model.fit(texts, np.zeros((3, 6)))
    letters = SequencePreprocessor(tokens=True)  # texts as bytes, without a tokenizer
    model = language_model(preprocessor=letters, vocabulary_size=128)
    text = np.frombuffer(b"abcd", np.uint8)
    expected = nats(model, text).mean()
    assert evaluate(model, ["abcd"])["loss"] == pytest.approx(expected, rel=1e-5)
    assert evaluate(model, [text])["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.once("torch")
def test_what_would_train_another_model_is_refused(model, ids):
    for message, data in {
        "need a `preprocessor`": (["abc"],),
        "at least two tokens": ([np.array([1]), np.array([2])],),
        "must lie from 0 to 6": (ids + 1,),
        "one entry for each of the 8 steps": (ids, ids[:, 1:]),
        "labels from 0 to 6": (ids, ids + 1),
        "Token ids must be integers": (ids / 2,),
    }.items():
        with pytest.raises(ValueError, match=message):
            model.fit(*data, verbose=0)
    with pytest.raises(ValueError, match="for a model with classes"):
        model.fit(ids, class_weight={0: 2.0}, verbose=0)
    with pytest.raises(ValueError, match="`document_end_ids` must be ids from 0 to 6"):
        model.compile(document_end_ids=7)
    with pytest.raises(ValueError, match="reads probabilities"):
        model.compile(loss="poisson")
    for sampler in ("nucleus", "Greedy", 0.5):
        with pytest.raises(ValueError, match=rf"one of greedy.*Received: sampler={sampler!r}"):
            model.compile(sampler=sampler)
    for data in (["abc"], np.array(["abc"]), np.array([[1], [1, 2]], dtype=object)):
        with pytest.raises(ValueError, match="`token_ids` must be integers, in rows of one length"):
            model(data)


@pytest.mark.once("torch")
def test_names_of_losses_and_samplers_and_what_is_compiled_again(model, rows, expected, tmp_path):
    model = language_model(num_layers=1)
    model.compile("sgd", "sparse_categorical_crossentropy", sampler="greedy", document_end_ids=6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    model.enable_lora(1)
    for one in (loaded, model):
        assert isinstance(one.sampler, keras_hub.samplers.GreedySampler)
        assert one.document_end_ids == (6,)
        assert one.loss.reduction == "mean_with_sample_weight"
    model.compile("sgd")
    assert model.document_end_ids == () and evaluate(model, rows)["loss"] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.once("torch")
def test_the_default_optimizer_decays_matrices_alone_and_clips():
    model = SSMCausalLM(backbone(), tie_embeddings=False)
    optimizer, weights = model.optimizer, model.trainable_variables
    assert optimizer.global_clipnorm == 1.0
    before = [to_numpy(weight) + 1 for weight in weights]
    for weight, value in zip(weights, before, strict=True):
        weight.assign(value)
    optimizer.apply([keras.ops.zeros_like(weight.value) for weight in weights], weights)
    groups = {True: set(), False: set()}
    for weight, value in zip(weights, before, strict=True):
        shrunk = to_numpy(weight) / value
        assert shrunk.max() - shrunk.min() < 1e-6
        groups[bool(shrunk.max() < 1)].add("/".join(weight.path.split("/")[-2:]))
    matrices = {"in_proj/kernel", "x_proj/kernel", "dt_proj/kernel", "out_proj/kernel"}
    matrices |= {"head/kernel", "token_embedding/embeddings", "mamba/conv_kernel"}
    assert groups[True] == matrices
    kept = {"mamba/A_log", "mamba/D", "mamba/dt_bias", "mamba/conv_bias"}
    assert groups[False] == kept | {"norm/scale", "final_norm/scale"}
