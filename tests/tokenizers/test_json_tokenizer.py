"""Tokenizers from a `tokenizer.json`: ids of the library, special tokens, files of strangers."""

import json
import pickle
import shutil

import keras
import keras_hub
import pytest
import tokenizers

from keras_ssm.tokenizers import JSONTokenizer, tokenizer_files
from tests.tokenizer_tools import mixed_lines, train

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("neox") / "tokenizer.json"
    train(path)
    return path


def changed(file, folder, **entries):
    """A copy of the file with other entries."""
    document = {**json.loads(file.read_text()), **entries}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(document))
    return path


def test_ids_and_texts_are_those_of_the_library(file):
    library, tokenizer = tokenizers.Tokenizer.from_file(str(file)), JSONTokenizer(file)
    lines = mixed_lines(10_000)
    expected = [encoding.ids for encoding in library.encode_batch(lines)]
    assert tokenizer(lines) == expected
    assert tokenizer([line.encode() for line in lines[:400]]) == expected[:400]
    assert tokenizer.detokenize(expected) == library.decode_batch(expected)
    runs = [tokenizer("a" + " " * n + "b")[1:-1] for n in (2, 3, 24)]
    assert [len(ids) for ids in runs] == [1, 1, 1]
    assert [ids[0] for ids in runs] == [tokenizer.vocabulary_size() - i for i in (1, 2, 23)]
    assert tokenizer("e\u0301") == tokenizer("\u00e9")
    assert tokenizer("a<|endoftext|>") == [*tokenizer("a"), 0]
    assert tokenizer.detokenize([*tokenizer("a  b"), 0, 1]) == "a  b"


def test_bytes_of_a_part_of_a_character_are_counted(file):
    tokenizer = JSONTokenizer(file)
    for line in ("東a  b", "Zoë<|endoftext|>", "😀"):
        ids = tokenizer(line)
        size = len(line.replace("<|endoftext|>", "").encode())
        assert tokenizer.count_bytes(ids) == size
        assert sum(tokenizer.count_bytes([i]) for i in ids) == size
    assert tokenizer.count_bytes(tokenizer("😀")[:1]) < 4


def test_nothing_is_cut_filled_or_added(file, tmp_path):
    library = tokenizers.Tokenizer.from_file(str(file))
    plain = library.encode("a longer text").ids
    library.enable_truncation(2)
    library.enable_padding(length=9)
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    assert JSONTokenizer(tmp_path)("a longer text") == plain


def test_it_is_a_tokenizer_of_keras_hub(file):
    tokenizer = JSONTokenizer(str(file))
    assert isinstance(tokenizer, keras_hub.tokenizers.Tokenizer)
    assert tokenizer.special_tokens == ["<|endoftext|>", "<|padding|>"]
    assert tokenizer.special_token_ids == [0, 1]
    assert tokenizer.get_vocabulary()["  "] == tokenizer.vocabulary_size() - 1
    assert tokenizer.id_to_token(tokenizer.token_to_id("Ġstate")) == "Ġstate"
    for i in (-1, tokenizer.vocabulary_size(), "a"):
        with pytest.raises(ValueError, match="must be that of a token"):
            tokenizer.id_to_token(i)
    with pytest.raises(ValueError, match="in the vocabulary"):
        tokenizer.token_to_id("<s>")


FILES = {
    "tokenizer_config.json": {"eos_token": {"content": "Ġs"}, "pad_token": "[PAD]"},
    "special_tokens_map.json": {"eos_token": "a", "bos_token": "b"},
    "generation_config.json": {"eos_token_id": 5, "pad_token_id": [7, 8]},
}


def test_special_tokens_are_found_beside_the_file(file, tmp_path):
    def tokens(tokenizer):
        return tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token

    assert tokens(JSONTokenizer(file)) == ("<|endoftext|>", "<|endoftext|>", "<|padding|>")
    shutil.copy(file, tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = JSONTokenizer(tmp_path)  # tokens that the vocabulary lacks are searched elsewhere
    assert tokens(found) == ("b", "Ġs", found.id_to_token(7))
    assert (found.start_token_id, found.pad_token_id) == (found.token_to_id("b"), 7)
    given = JSONTokenizer(tmp_path, start_token=None, end_token="<|endoftext|>")
    assert tokens(given) == (None, "<|endoftext|>", found.id_to_token(7))
    assert given.start_token_id is None and given.end_token_id == 0
    with pytest.raises(ValueError, match="end_token='</s>'"):
        JSONTokenizer(file, end_token="</s>")
    with pytest.raises(ValueError, match="pad_token=1"):
        JSONTokenizer(file, pad_token=1)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        JSONTokenizer(tmp_path)


def test_files_that_are_no_tokenizer_are_refused(file, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="no file"):
        JSONTokenizer(tmp_path)
    whole = file.read_bytes()
    deep = b'{"version": "1.0", "model": ' + b'{"a": ' * 100_000 + b"}" * 100_001
    for content in (b"", whole[:-100], b"[1]", b"{}", deep, b"\xff" * 50):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must be a complete `tokenizer\.json`"):
            JSONTokenizer(path)
    changed(file, tmp_path, model={"type": "BPE", "vocab": {}, "merges": []}, added_tokens=[])
    with pytest.raises(ValueError, match="a vocabulary without a token"):
        JSONTokenizer(path)
    changed(file, tmp_path, pre_tokenizer={"type": "Python", "code": "import os"})
    with pytest.raises(ValueError, match="must be a complete"):
        JSONTokenizer(path)
    monkeypatch.setattr(tokenizer_files, "LARGEST", 1000)
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        JSONTokenizer(file)


def test_texts_that_it_does_not_know_are_refused(file, tmp_path):
    tokenizer = JSONTokenizer(file)
    with pytest.raises(ValueError, match="must be UTF-8"):
        tokenizer(b"\xff")
    with pytest.raises(ValueError, match="must be Unicode"):
        tokenizer("\ud800")
    with pytest.raises(ValueError, match="Received: \\[4000000"):
        tokenizer.detokenize([4_000_000_000])
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="?"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="that this tokenizer knows"):
        JSONTokenizer(tmp_path)("b")


def test_copies_hold_the_file_and_a_configuration_names_none(file):
    tokenizer = JSONTokenizer(file, start_token=None, name="neox")
    copied = pickle.loads(pickle.dumps(tokenizer))
    assert copied("a  b") == tokenizer("a  b")
    assert copied.get_config() == tokenizer.get_config() and copied.start_token is None
    config = tokenizer.get_config()
    assert str(file) not in json.dumps(keras.layers.serialize(tokenizer))
    empty = JSONTokenizer.from_config(config)
    for use in (lambda: empty("a"), empty.vocabulary_size, lambda: pickle.dumps(empty)):
        with pytest.raises(ValueError, match="no vocabulary yet"):
            use()
    with pytest.raises(ValueError, match="names no file"):
        JSONTokenizer.from_config({**config, "file": str(file)})


def test_in_tf_data(file):
    import tensorflow as tf

    tokenizer = JSONTokenizer(file)
    lines = [line for line in mixed_lines(30) if "\0" not in line]
    batch = next(iter(tf.data.Dataset.from_tensor_slices(lines).batch(99).map(tokenizer)))
    assert batch.to_list() == tokenizer(lines)


def test_ids_with_gaps_and_added_tokens_count(tmp_path):
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 5}))
    library.save(str(tmp_path / "tokenizer.json"))
    assert JSONTokenizer(tmp_path / "tokenizer.json").vocabulary_size() == 6
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_tokens(["\u2192"])
    library.add_special_tokens(["<end>"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = JSONTokenizer(tmp_path / "tokenizer.json", end_token="<end>")
    ids = [tokenizer.token_to_id(token) for token in ("a", "\u2192", "<end>")]
    assert [tokenizer.count_bytes([i]) for i in ids] == [1, 3, 0]
    by_name = JSONTokenizer(tmp_path / "tokenizer.json", end_token="b")
    assert by_name.count_bytes([0, 5]) == 1
