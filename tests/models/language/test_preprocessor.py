"""From texts to rows of token ids with targets, and back: by keras_hub's contract, and packed."""

import itertools

import keras
import keras_hub
import numpy as np
import pytest

from keras_ssm.models import SSMCausalLMPreprocessor
from keras_ssm.tokenizers import ByteTokenizer, JSONTokenizer
from tests.backend_tools import to_numpy
from tests.tokenizer_tools import train

pytestmark = pytest.mark.once("torch")

TEXTS = ["state", "", "a", "space and time"]


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    path = tmp_path_factory.mktemp("neox") / "tokenizer.json"
    train(path)
    # As published: 0 ends a text and fills rows.
    return JSONTokenizer(path, pad_token="<|endoftext|>")


def small(packing=None, tokenizer=None, **kwargs):
    tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
    return SSMCausalLMPreprocessor(tokenizer, sequence_length=6, packing=packing, **kwargs)


def assert_equal(found, expected):
    found, expected = keras.tree.flatten(found), keras.tree.flatten(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), to_numpy(other))


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_rows_are_those_of_keras_hub(start, end, neox):
    flags = {"sequence_length": 6, "add_start_token": start, "add_end_token": end}
    for tokenizer in (ByteTokenizer(), neox):
        mine = SSMCausalLMPreprocessor(tokenizer, **flags)
        theirs = keras_hub.models.CausalLMPreprocessor(tokenizer, **flags)
        assert isinstance(mine, keras_hub.models.CausalLMPreprocessor)
        for x in (TEXTS, "space"):
            assert_equal(mine(x), theirs(x))
            assert_equal(mine(x, sequence_length=3), theirs(x, sequence_length=3))
            if start:  # without it keras_hub's prompts have one all the same
                prompts = mine.generate_preprocess(x, sequence_length=20)
                assert_equal(prompts, theirs.generate_preprocess(x, sequence_length=20))
                assert mine.generate_postprocess(prompts) == theirs.generate_postprocess(prompts)
    x, y, weight = small()("ab")
    assert x["token_ids"].tolist() == [97, 98, 258, 256, 256, 256]
    assert y.tolist()[:3] == [98, 258, 256] and weight.tolist()[:3] == [True, True, False]


def test_an_end_token_counts_where_it_is_padding_too(neox):
    x, y, weight = small(tokenizer=neox)(["a"])
    assert y[0].tolist() == [0] * 6 and weight[0].tolist() == [True] + [False] * 5
    assert x["padding_mask"][0].tolist() == [True, True] + [False] * 4


def test_prompts_have_no_end_and_come_back(neox):
    for tokenizer in (ByteTokenizer(), neox):
        preprocessor = small(tokenizer=tokenizer)
        prompts = preprocessor.generate_preprocess(TEXTS, sequence_length=20)
        assert prompts["token_ids"].shape == (4, 20)
        assert prompts["padding_mask"].sum(axis=1).tolist() == [len(i) for i in tokenizer(TEXTS)]
        assert preprocessor.generate_postprocess(prompts) == TEXTS
        one = preprocessor.generate_preprocess("space")
        assert one["token_ids"].shape == (6,)
        assert preprocessor.generate_postprocess(one) == "space"
        ids = prompts["token_ids"].copy()
        ids[0, :2] = tokenizer.end_token_id, tokenizer.vocabulary_size()  # a row of no token
        tensors = keras.ops.convert_to_tensor(ids)
        texts = preprocessor.generate_postprocess({**prompts, "token_ids": tensors})
        assert texts[0] == tokenizer.detokenize(tokenizer("state")[2:])
    with pytest.warns(UserWarning, match="14 tokens was cut to the 6"):
        small().generate_preprocess(TEXTS)


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("packing", ["split", "join"])
def test_packed_rows_lose_nothing(packing, start):
    texts = [*TEXTS, "x" * 30, "abcde", "abcdef"]
    preprocessor = small(packing, add_start_token=start)
    x, y, weight = preprocessor(texts)
    documents = [[257] * start + list(text.encode()) + [258] for text in texts]
    rows = documents if packing == "split" else [list(itertools.chain(*documents))]
    # Each token but the first of its document is a target once, after all tokens before it.
    pairs, position = [], 0
    for row in rows:
        firsts, at = set(), 0
        for document in documents if packing == "join" else [row]:
            firsts.add(at)
            at += len(document)
        pairs += [(row[i - 1], row[i]) for i in range(1, len(row)) if i not in firsts]
    found = list(zip(x["token_ids"][weight].tolist(), y[weight].tolist(), strict=True))
    assert found == pairs
    # And the rows are the texts, cut: a row begins with the last target of the one before.
    for row in rows:
        count = -(-(len(row) - 1) // 6)
        window = slice(position, position + count)
        valid = x["padding_mask"][window]
        assert x["token_ids"][window][valid].tolist() == row[: count * 6]
        assert y[window].reshape(-1)[: len(row) - 1].tolist() == row[1:]
        position += count
    assert position == len(y)
    if packing == "join":
        assert x["padding_mask"][:-1].all()


def test_token_ids_are_read_like_texts():
    for packing in (None, "split", "join"):
        preprocessor = small(packing)
        expected = preprocessor(["state", "time"])
        ids = [list(b"state"), list(b"time")]
        for x in (
            ids,
            [np.array(row) for row in ids],
            [b"state", b"time"],
            np.array(["state", "time"]),
        ):
            assert_equal(preprocessor(x), expected)
        assert_equal(preprocessor(ids[0]), preprocessor("state"))
        padded = np.array([ids[0][:4], ids[1]])
        for x in (padded, keras.ops.convert_to_tensor(padded)):
            assert_equal(preprocessor(x), preprocessor(["stat", "time"]))


def test_a_dict_loses_nothing_but_its_last_step():
    ids = np.array([[5, 6, 7, 8], [1, 2, 9, 9]])
    mask = np.array([[True, True, False, True], [True, True, False, False]])
    x, y, weight = small("join")({"token_ids": ids, "padding_mask": mask})
    assert_equal(x, {"token_ids": ids[:, :-1], "padding_mask": mask[:, :-1]})
    assert y.tolist() == [[6, 7, 8], [2, 9, 9]]
    assert weight.tolist() == [[1, 0, 0]] * 2  # a target has its token before it
    x, y, weight = small()({"token_ids": [[5, 6, 7], [1]]}, sample_weight=[0.5, 3.0])
    assert x["padding_mask"].tolist() == [[True, True], [True, False]]
    assert weight.tolist() == [[0.5, 0.5], [0, 0]]


def test_own_targets_and_weights_are_kept():
    preprocessor = small(packing="join")
    x, y = np.array([[1, 2, 3]]), np.array([[2, 3, 4]])
    weight = np.array([[1.0, 0.0, 1.0]])
    found, targets, weights = preprocessor(x, y=y, sample_weight=weight)
    assert found["token_ids"].tolist() == [[1, 2, 3]] and found["padding_mask"].all()
    assert targets is y and weights is weight
    for texts in (["abc"], np.array(["abc"]), "abc"):
        with pytest.raises(ValueError, match="`y` must be None"):
            preprocessor(texts, y=y)
    _, y, weight = preprocessor(["ab", "c"], sample_weight=[2.0, 0.5])
    assert y[0].tolist()[:4] == [98, 258, 99, 258] and weight[0].tolist() == [2, 2, 0, 0.5, 0, 0]
    with pytest.raises(ValueError, match="one entry for each of the 2 texts"):
        preprocessor(["ab", "c"], sample_weight=np.ones((2, 6)))


@pytest.mark.parametrize("packing", [None, "split", "join"])
def test_in_tf_data(packing):
    import tensorflow as tf

    preprocessor = small(packing)
    texts = tf.data.Dataset.from_tensor_slices(TEXTS)
    batches = texts.batch(4).map(preprocessor)
    assert_equal(next(iter(batches)), preprocessor(TEXTS))
    assert batches.element_spec[1].shape == (None, 6)
    ids = ByteTokenizer()(TEXTS)
    given = tf.data.Dataset.from_tensors(tf.ragged.constant(ids))
    assert_equal(next(iter(given.map(preprocessor))), preprocessor(TEXTS))
    whole = tf.data.Dataset.from_tensors(({"token_ids": [[1, 2, 3]]}, [2.0]))
    whole = whole.map(lambda x, weight: preprocessor(x, sample_weight=weight))
    assert next(iter(whole))[2].numpy().tolist() == [[2.0, 2.0]]
    weighted = tf.data.Dataset.from_tensors((TEXTS, [1.0, 2.0, 3.0, 4.0]))
    weighted = weighted.map(lambda x, weight: preprocessor(x, sample_weight=weight))
    assert_equal(next(iter(weighted)), preprocessor(TEXTS, sample_weight=[1.0, 2.0, 3.0, 4.0]))
    one = next(iter(texts.map(preprocessor)))
    assert_equal(one, preprocessor(TEXTS[0]))
    prompts = next(iter(texts.take(1).map(preprocessor.generate_preprocess)))
    assert_equal(prompts, preprocessor.generate_preprocess("state"))
    with pytest.raises(ValueError, match=r"texts of shape \(\) or"):
        texts.batch(2).batch(2).map(preprocessor)


def test_settings_act_from_the_next_batch_on():
    preprocessor = small()
    preprocessor.sequence_length = 3
    preprocessor.packing, preprocessor.add_end_token = "split", False
    assert preprocessor("abcdef")[1].tolist() == [[98, 99, 100], [101, 102, 256]]
    copied = SSMCausalLMPreprocessor.from_config(preprocessor.get_config())
    assert copied.get_config() == preprocessor.get_config()
    for name, value in (("sequence_length", 0), ("packing", "glue"), ("add_end_token", 1)):
        with pytest.raises(ValueError, match=name):
            setattr(preprocessor, name, value)


class Nameless(keras_hub.tokenizers.Tokenizer):
    """A tokenizer that knows no special tokens, as some of keras_hub."""

    def tokenize(self, inputs):
        return [[ord(c) for c in text] for text in inputs]

    def call(self, inputs):
        return self.tokenize(inputs)

    def detokenize(self, inputs):
        return ["".join(map(chr, row)) for row in inputs]

    def vocabulary_size(self):
        return None


def test_any_tokenizer_of_keras_hub_serves():
    vocabulary = {"<|endoftext|>": 0, **{chr(97 + i): i + 1 for i in range(26)}, "Ġ": 27, "ab": 28}
    neox = keras_hub.tokenizers.GPTNeoXTokenizer(vocabulary=vocabulary, merges=["a b"])
    expected = keras_hub.models.GPTNeoXCausalLMPreprocessor(
        neox, sequence_length=6, add_start_token=False
    )(["abc d", "e"])
    assert_equal(small(tokenizer=neox)(["abc d", b"e"]), expected)
    preprocessor = small(tokenizer=Nameless(), add_end_token=False)
    assert preprocessor(["abc"])[1].tolist() == [[98, 99, 0, 0, 0, 0]]
    assert preprocessor.generate_postprocess(preprocessor.generate_preprocess(["abc"])) == ["abc"]


def test_what_it_cannot_read_is_refused():
    with pytest.raises(ValueError, match="tokenizer='bytes'"):
        SSMCausalLMPreprocessor("bytes")
    with pytest.raises(ValueError, match="Nameless with end_token_id=None"):
        small(tokenizer=Nameless())(["abc"])
    with pytest.raises(ValueError, match="needs a token between texts"):
        small("join", add_end_token=False)(["abc"])
    with pytest.raises(ValueError, match="documents of at most one token"):
        small("split")(["", ""])
    for x, match in (
        ([], "at least one text"),
        ([["a"]], "one-dimensional integers"),
        (["a", [1]], "not both"),
        ([0.5], "one-dimensional integers"),
        (np.zeros((2, 3)), "dtype float64"),
        (np.zeros((2, 3, 1), int), r"shape \(2, 3, 1\)"),
        ([[1, -2]], "from 0"),
        ({"inputs": [[1]]}, "Received: keys"),
        ({"token_ids": [[1, 2]], "padding_mask": [[True]]}, "entry for each"),
    ):
        with pytest.raises(ValueError, match=match):
            small()(x)
