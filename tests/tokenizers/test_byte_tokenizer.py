"""Bytes as tokens: exact both ways, whatever holds the texts."""

import pickle

import keras
import keras_hub
import numpy as np
import pytest

from keras_ssm.tokenizers import ByteTokenizer

pytestmark = pytest.mark.once("torch")

TEXTS = ["Zoë  ÀB", "", "東京\n😀\x00"]


def test_any_bytes_come_back(rng):
    exact = ByteTokenizer(errors="surrogateescape")
    rows = [bytes(range(256)), rng.integers(256, size=500, dtype="uint8").tobytes(), b"\xff\x00"]
    assert exact(rows) == [list(row) for row in rows]
    texts = exact.detokenize(exact(rows))
    assert exact(texts) == [list(row) for row in rows]
    tokenizer = ByteTokenizer()
    assert tokenizer.detokenize(tokenizer(TEXTS)) == TEXTS  # no case, no normal form is changed
    assert tokenizer.detokenize([90, 0xFF, 98]) == "Z\ufffdb"
    tokenizer.errors = "ignore"
    assert tokenizer.detokenize([90, 0xFF, 98]) == "Zb"
    with pytest.raises(ValueError, match="errors='strict'"):
        ByteTokenizer(errors="strict").detokenize([0xFF])


def test_ids_and_names():
    tokenizer = ByteTokenizer()
    assert isinstance(tokenizer, keras_hub.tokenizers.Tokenizer)
    ids = (tokenizer.pad_token_id, tokenizer.start_token_id, tokenizer.end_token_id)
    assert ids == (256, 257, 258) and tokenizer.vocabulary_size() == 259
    assert tokenizer.special_token_ids == list(ids)
    vocabulary = tokenizer.get_vocabulary()
    assert list(vocabulary.values()) == list(range(259))
    for i in (0, 65, 255, 256, 258):
        assert tokenizer.token_to_id(tokenizer.id_to_token(i)) == i
    assert tokenizer.token_to_id(tokenizer.end_token) == 258
    assert tokenizer.detokenize([257, 90, 258, 256, 256]) == "Z"
    assert tokenizer.count_bytes([257, 195, 258]) == 1
    assert tokenizer("<end>") == list(b"<end>")  # no text makes a special token
    for name in ("€", "<unknown>", 7):
        with pytest.raises(ValueError, match="token="):
            tokenizer.token_to_id(name)
    with pytest.raises(ValueError, match="id=259"):
        tokenizer.id_to_token(259)


def test_texts_and_ids_in_every_form():
    tokenizer = ByteTokenizer()
    assert tokenizer("ab") == tokenizer(b"ab") == tokenizer(np.array("ab")) == [97, 98]
    for texts in (("a", b"bc"), np.array(["a", "bc"]), np.array(["a", b"bc"], object)):
        assert tokenizer(texts) == [[97], [98, 99]]
    assert tokenizer([["a"], ["b", "c"]]) == [[[97]], [[98], [99]]]
    ids = keras.ops.convert_to_tensor(np.array([[97, 98], [99, 256]]))
    assert tokenizer.detokenize(ids) == ["ab", "c"]
    assert tokenizer.detokenize([]) == "" and tokenizer.detokenize([[], [97]]) == ["", "a"]
    assert tokenizer.detokenize([[[97]], [[98], []]]) == [["a"], ["b", ""]]


def test_what_is_no_text_or_id_is_refused():
    tokenizer = ByteTokenizer()
    for texts in (3, ["a", 3], [["a"], [None]]):
        with pytest.raises(ValueError, match="must be str or bytes"):
            tokenizer(texts)
    with pytest.raises(ValueError, match="surrogates"):
        tokenizer("\ud800")
    for ids in ([259], [-1], [0.5], [[1], [300]], 5, [True], ["a"]):
        with pytest.raises(ValueError, match="from 0 to 258"):
            tokenizer.detokenize(ids)
    with pytest.raises(ValueError, match="errors='never'"):
        ByteTokenizer(errors="never")
    with pytest.raises(AttributeError, match="end_token_id=0"):
        tokenizer.end_token_id = 0


def test_files_keep_the_settings():
    tokenizer = ByteTokenizer(errors="ignore", name="bytes")
    copies = [
        ByteTokenizer.from_config(tokenizer.get_config()),
        keras.layers.deserialize(keras.layers.serialize(tokenizer)),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    for one in copies:
        assert one.errors == "ignore" and one.get_config() == tokenizer.get_config()


def test_in_tf_data():
    import tensorflow as tf

    tokenizer = ByteTokenizer()
    texts = tf.data.Dataset.from_tensor_slices(TEXTS)
    assert [row.numpy().tolist() for row in texts.map(tokenizer)] == tokenizer(TEXTS)
    batches = texts.batch(3).map(tokenizer)
    assert next(iter(batches)).to_list() == tokenizer(TEXTS)
    back = next(iter(batches.map(tokenizer.detokenize))).numpy().tolist()
    assert back == [text.encode() for text in TEXTS]
    with pytest.raises(ValueError, match="must be strings"):
        tf.data.Dataset.from_tensor_slices([1, 2]).map(tokenizer)
