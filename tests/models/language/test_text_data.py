"""Texts in `fit`, `evaluate` and `predict`, and the tokenizer in files of the model."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMCausalLMPreprocessor, SSMClassifier
from keras_ssm.tokenizers import ByteTokenizer, JSONTokenizer
from tests.tokenizer_tools import train

TEXTS = ["state", "a space", "time steps"]


def model_of(tokenizer, packing=None):
    preprocessor = SSMCausalLMPreprocessor(tokenizer, sequence_length=6, packing=packing)
    mixer = S4D(state_dim=4, seed=0)
    size = tokenizer.vocabulary_size()
    backbone = SSMBackbone(mixer, num_layers=1, hidden_dim=4, vocabulary_size=size)
    return SSMCausalLM(backbone, preprocessor=preprocessor)


@pytest.fixture
def eager_model():
    def make(packing):
        model = model_of(ByteTokenizer(), packing)
        model.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
        return model

    return make


def loss(model, *data, **kwargs):
    return model.evaluate(*data, verbose=0, return_dict=True, **kwargs)["loss"]


@pytest.mark.once("torch")
def test_fit_on_texts_learns():
    model = model_of(ByteTokenizer(), "join")
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    losses = model.fit(TEXTS, epochs=3, batch_size=2, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def streams():
    import tensorflow as tf
    import torch

    rows = tf.data.Dataset.from_tensor_slices(TEXTS)
    return {
        "array": np.array(TEXTS),
        "tuple of bytes": tuple(text.encode() for text in TEXTS),
        "tf.data": rows.batch(3),
        "loader": torch.utils.data.DataLoader(TEXTS, batch_size=3),
        "list of batches": iter([TEXTS]),
    }


@pytest.mark.once("torch")
@pytest.mark.parametrize("packing", [None, "join"])
def test_texts_of_every_kind_tell_the_same_as_tensorflow_and_torch_hold_them(packing, eager_model):
    model = eager_model(packing)
    x, y, weight = model.preprocessor(TEXTS)
    expected = loss(model, x, y, sample_weight=weight)
    shape = y.shape
    np.testing.assert_allclose(loss(model, TEXTS), expected, rtol=1e-6)
    for name, data in streams().items():
        np.testing.assert_allclose(loss(model, data), expected, rtol=1e-6, err_msg=name)
    for name, data in streams().items():
        assert model.predict(data, verbose=0).shape == (*shape, 259), name
    np.testing.assert_allclose(model.test_on_batch(TEXTS)[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(model.predict_on_batch(TEXTS), model.predict_on_batch(x))
    model.compile(run_eagerly=True, document_end_ids=[258])  # the weights already know it
    np.testing.assert_allclose(loss(model, TEXTS), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(model, streams()["tf.data"]), expected, rtol=1e-6)


@pytest.mark.once("torch")
def test_fit_takes_texts_wherever_data_go(eager_model):
    import tensorflow as tf

    model = eager_model(None)
    rows = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2)
    history = model.fit(rows, validation_data=rows, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    expected = loss(model, TEXTS)
    for validation in (TEXTS, TEXTS[:2], (TEXTS,), rows):
        found = model.fit(TEXTS, validation_data=validation, verbose=0).history["val_loss"][0]
        if validation is not rows and len(validation) != 2:
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.fit((batch for batch in (TEXTS[:2], TEXTS[2:])), verbose=0)
    model.fit(TEXTS, validation_split=0.4, sample_weight=np.array([1.0, 0.0, 2.0]), verbose=0)
    model.train_on_batch(TEXTS)
    one = loss(model, ["state", "a space"], sample_weight=[1.0, 0.0])
    np.testing.assert_allclose(one, loss(model, ["state"]), rtol=1e-5)
    raw = [b"\xff\xfe\xff", b"Zo\xc3\xab"]  # bytes stay the same
    np.testing.assert_allclose(
        loss(model, raw), loss(model, [[*raw[0], 258], [*raw[1], 258]]), rtol=1e-5
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("neox") / "tokenizer.json"
    train(path)
    return path


@pytest.mark.once("torch")
def test_files_of_the_model_hold_its_tokenizer(file, tmp_path):
    text = "a  b<|endoftext|>e\u0301"
    for name, tokenizer in (("bytes", ByteTokenizer()), ("neox", JSONTokenizer(file))):
        model = model_of(tokenizer)
        model.save(tmp_path / "model.keras")
        model.save_to_preset(tmp_path / name)
        copies = [
            keras.saving.load_model(tmp_path / "model.keras"),
            SSMCausalLM.from_preset(tmp_path / name),
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
            keras.models.clone_model(model),
        ]
        model.enable_lora(2)
        copies.append(pickle.loads(pickle.dumps(model)))
        for one in copies:
            assert one.preprocessor is not model.preprocessor
            assert one.preprocessor.tokenizer(text) == tokenizer(text)
            assert one.preprocessor.tokenizer.end_token_id == tokenizer.end_token_id
        assert type(tokenizer).from_preset(tmp_path / name)(text) == tokenizer(text)
        preprocessor = SSMCausalLMPreprocessor.from_preset(tmp_path / name, sequence_length=3)
        assert preprocessor.tokenizer(text) == tokenizer(text)
        assert preprocessor.sequence_length == 3
    lines = []
    model.summary(print_fn=lines.append)
    assert "tokenizer: JSONTokenizer" in "".join(lines)
    with pytest.raises(ValueError, match="must hold a ByteTokenizer"):
        ByteTokenizer.from_preset(tmp_path / "neox")


@pytest.mark.once("torch")
def test_a_preset_vouches_for_its_tokenizer(file, tmp_path):
    model_of(JSONTokenizer(file)).save_to_preset(tmp_path / "preset")
    listed = json.loads((tmp_path / "preset" / "preset.json").read_text())["files"]
    asset = "assets/tokenizer/tokenizer.json"
    assert {asset, "tokenizer.json", "preprocessor.json"} <= set(listed)
    path = tmp_path / "preset" / asset
    content = path.read_text()
    path.write_text(content.replace("<|padding|>", "<|unpadded|>"))
    with pytest.raises(ValueError, match=f"'{asset}'.* is damaged or was altered"):
        SSMCausalLM.from_preset(tmp_path / "preset")
    path.unlink()
    with pytest.raises(ValueError, match=f"no file '{asset}'"):
        JSONTokenizer.from_preset(tmp_path / "preset")


@pytest.mark.once("torch")
def test_other_tasks_and_preprocessors_of_a_preset(file, tmp_path):
    model = model_of(JSONTokenizer(file))
    model.save_to_preset(tmp_path / "neox")
    model_of(ByteTokenizer()).save_to_preset(tmp_path / "bytes")
    model.backbone.save_to_preset(tmp_path / "backbone")
    classifier = SSMClassifier.from_preset(tmp_path / "bytes", num_classes=2)
    assert classifier.predict(["state"], verbose=0).shape == (1, 2)
    with pytest.raises(ValueError, match="`preprocessor=None` and token ids"):
        SSMClassifier.from_preset(tmp_path / "neox", num_classes=2)
    ids = np.array([[1, 2, 300]])
    for name, given in (("neox", {"preprocessor": None}), ("backbone", {})):
        classifier = SSMClassifier.from_preset(tmp_path / name, num_classes=2, **given)
        assert classifier.predict(ids, verbose=0).shape == (1, 2)
    with pytest.raises(ValueError, match="which was not trained as a SSMCausalLM") as error:
        SSMCausalLM.from_preset("s4d_digits")
    assert str(error.value).endswith("Received: a preset of a SSMClassifier, with no arguments")
    with pytest.raises(ValueError, match="holds no tokenizer: pass `tokenizer`"):
        SSMCausalLMPreprocessor.from_preset(tmp_path / "backbone")
    given = SSMCausalLMPreprocessor.from_preset(tmp_path / "backbone", tokenizer=ByteTokenizer())
    assert given("a")[1][0] == 258


@pytest.mark.once("torch")
def test_bits_per_byte_of_texts_that_begin_within_a_character(eager_model):
    model = eager_model(None)
    ids = [*"東 é".encode()]
    expected = model.bits_per_byte([ids], num_bytes=len(ids) - 1)
    np.testing.assert_allclose(model.bits_per_byte(["東 é"]), expected, rtol=1e-6)


@pytest.mark.once("torch")
def test_what_cannot_be_learned_from_is_refused(tmp_path):
    few = SSMBackbone(S4D(state_dim=4), num_layers=1, hidden_dim=4, vocabulary_size=100)
    with pytest.raises(ValueError, match=r"all 259 tokens.*Received: vocabulary_size=100"):
        SSMCausalLM(few, preprocessor=SSMCausalLMPreprocessor(ByteTokenizer()))
    model = model_of(ByteTokenizer())
    model.preprocessor.add_start_token = model.preprocessor.add_end_token = False
    for texts in (["", ""], ["a", "b"]):
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match="2 rows of which no token is left to learn from"):
                use(texts, verbose=0)
    assert model.predict(["a", "b"], verbose=0).shape[0] == 2
    # An epoch does not end at a batch without targets.
    history = model.fit(iter([["abc", "de"], ["f"]]), verbose=0)
    assert 0 < history.history["loss"][0] < np.inf
