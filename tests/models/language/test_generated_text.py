"""Generation of text: streams, stop strings, and states between calls and processes."""

import ast
import subprocess
import sys
import warnings

import keras_hub
import numpy as np
import pytest

from keras_ssm.models import GenerationState, SSMCausalLMPreprocessor
from keras_ssm.models.language.text_stream import StopStrings, TextStream
from keras_ssm.tokenizers import ByteTokenizer
from tests.models.language.generating import END, PAD, PIECES, Preprocessor, language_model, says

pytestmark = pytest.mark.once("torch")
AB, SPLIT, REST = 258, 259, 260  # "ab", "\xf6" with the first byte of a face, the rest of it
TOKENS = [*b"x", SPLIT, REST, *b"st", AB, *b"cd"]
TEXT = "x\xf6\U0001f600.stabcd"


@pytest.fixture(scope="module")
def model():
    return says([*b"Q", *TOKENS])


def test_text_goes_in_and_comes_out(model):
    assert model.generate("Q") == "Q" + TEXT
    assert model.generate(["Q", "wQ"], max_length=6) == [
        "Qx\xf6\U0001f600.st",
        "wQx\xf6\U0001f600.s",
    ]
    assert model.generate("Q", strip_prompt=True) == TEXT
    assert model.generate(np.array(["Q"]), max_new_tokens=1) == ["Qx"]
    assert model.generate([b"Q"], max_new_tokens=1) == ["Qx"]
    ids = [*b"Q", *TOKENS, END]
    assert model.generate([*b"Q"]) == ids  # ids beside a preprocessor
    assert model.generate([*b"Q"], max_length=12, stop_token_ids=None)[:10] == ids
    assert model.generate("Q", stop_token_ids=ord("t")) == "Qx\xf6\U0001f600.st"
    with pytest.raises(ValueError, match="max_length=3, a prompt of 40 tokens"):
        model.generate("Q" * 40, max_length=3)
    with pytest.raises(ValueError, match=r"preprocessor gives.*a prompt of 40 tokens"):
        model.generate("Q" * 40)


def test_streams_give_characters_when_they_are_whole(model):
    pieces = list(model.generate("Q", stream=True))
    assert pieces == ["Q", "x", "\xf6", "\U0001f600.", "s", "t", "ab", "c", "d"]
    pieces = list(model.generate(["Q", "wc"], stream=True, strip_prompt=True))
    assert pieces[:3] == [["x", "d"], ["\xf6", ""], ["\U0001f600.", ""]]
    assert ["".join(parts) for parts in zip(*pieces, strict=True)] == [TEXT, "d"]
    # A character that stays incomplete is no text until the end.
    assert list(model.generate("Q", max_new_tokens=2, stream=True))[2:] == ["\xf6", "\ufffd"]


@pytest.mark.parametrize(
    ("strings", "expected"),
    [("tab", TEXT[:5]), (["abcd", "bc"], TEXT[:7]), ("\U0001f600", "x\xf6"), (["dx", "q"], TEXT)],
)
def test_text_ends_before_a_stop_string(model, strings, expected):
    kwargs = {"stop_strings": strings, "strip_prompt": True}
    assert model.generate("Q", **kwargs) == expected
    assert "".join(model.generate("Q", stream=True, **kwargs)) == expected
    rows = model.generate(["sQ", "Q"], **kwargs)
    assert rows == [expected, expected]
    assert model.generate("t", max_length=2, stop_strings="tab") == "tab"  # in part the prompt's


def test_after_a_stop_string_the_state_is_that_of_the_token_that_ended_it():
    model = language_model(vocabulary_size=len(PIECES), preprocessor=Preprocessor())
    model.sampler = keras_hub.samplers.RandomSampler(seed=3)
    prompts = ["Q", "other"]
    whole = model.generate([list(p.encode()) for p in prompts], max_new_tokens=60)
    model.sampler = keras_hub.samplers.RandomSampler(seed=3)
    stop = chr(next(t for t in whole[0][12:] if 32 < t < 127 and t not in whole[0][1:12]))
    kwargs = {"max_new_tokens": 60, "stop_strings": stop, "return_state": True}
    rows, state = model.generate([list(p.encode()) for p in prompts], **kwargs)
    for row, same in zip(rows, whole, strict=True):
        assert row == same[: len(row)]
    assert rows[0][-1] == ord(stop) and len(rows[0]) < 60
    model.compile(sampler="greedy")
    rest = model.generate(None, max_new_tokens=5, state=state)
    again = model.generate(rows, max_new_tokens=5)
    assert [a + b for a, b in zip(rows, rest, strict=True)] == again


def test_states_go_on_in_another_call(model):
    pieces = model.generate("Q", max_new_tokens=2, stream=True, return_state=True)
    with pytest.raises(ValueError, match="has not ended"):
        pieces.state  # noqa: B018
    assert "".join(pieces) == "Qx\xf6"  # a byte of the next character waits
    rest = model.generate("", state=pieces.state, max_new_tokens=20)
    assert rest == TEXT[2:]
    assert "".join(model.generate(None, state=pieces.state, stream=True)) == rest
    # Text between two calls is read and counted. A row may have none.
    _, state = model.generate(["Q", "w"], max_new_tokens=1, return_state=True)
    assert model.generate(["t", ""], max_length=4, state=state)[0] == "tabcd"
    with pytest.raises(ValueError, match="2 rows"):
        model.generate("", state=state)


def test_rows_of_the_table_without_a_token_are_never_chosen():
    size = len(PIECES)
    model = language_model(vocabulary_size=2 * size, preprocessor=Preprocessor())
    for sampler in ("random", "top_p", "beam", "contrastive", "greedy"):
        model.compile(sampler=sampler)
        rows = model.generate([[1, 2], [3]], max_new_tokens=20, stop_token_ids=None)
        assert max(map(max, rows)) < size
    model.preprocessor = None
    model.compile(sampler=keras_hub.samplers.RandomSampler(seed=0))
    assert np.max(model.generate([1, 2], max_new_tokens=40)) >= size


def test_batches_of_tf_data(model):
    import tensorflow as tf

    texts = tf.data.Dataset.from_tensor_slices(["Q", "wQ", "c"]).batch(2)
    assert model.generate(texts, max_length=6) == ["Q" + TEXT[:6], "wQ" + TEXT[:5], "cd"]
    with pytest.raises(ValueError, match="without `stream`"):
        model.generate(texts, stream=True)
    singles = tf.data.Dataset.from_tensor_slices(["Q", "c"])
    assert model.generate(singles, max_length=6) == ["Q" + TEXT[:6], "cd"]
    ids = tf.data.Dataset.from_tensors([[81], [119]]).concatenate(
        tf.data.Dataset.from_tensors([[81, 119]])
    )
    found = model.generate(ids, max_new_tokens=1)
    assert found[:, -1].tolist() == [PAD, PAD, found[2, 2]]
    rows = tf.data.Dataset.from_tensor_slices([[81], [119]])
    np.testing.assert_array_equal(model.generate(rows, max_new_tokens=1), found[:2, :2])


@pytest.mark.parametrize("add_start_token", [False, True])
def test_preprocessors_of_this_package(add_start_token):
    tokenizer = ByteTokenizer()
    preprocessor = SSMCausalLMPreprocessor(
        tokenizer, sequence_length=12, add_start_token=add_start_token
    )
    model = language_model(vocabulary_size=320, preprocessor=preprocessor, sampler="random")
    model.sampler = keras_hub.samplers.RandomSampler(seed=4)
    start = [tokenizer.start_token_id] * add_start_token
    ids = model.generate([[*start, *b"Zo\xc3\xab"], [*start, 120]])
    assert [len(row) for row in ids] == [12, 12]
    model.sampler = keras_hub.samplers.RandomSampler(seed=4)
    texts = model.generate(["Zo\xeb", "x"])
    assert texts == tokenizer.detokenize(ids) and texts[0].startswith("Zo\xeb")
    model.compile(sampler="greedy")
    assert model.generate(b"Zo\xff") == model.generate("Zo\udcff")  # bytes of no text
    # Text after a state is not the start of a text.
    kwargs = {"max_new_tokens": 6, "strip_prompt": True, "stop_token_ids": None}
    _, state = model.generate("ab", max_new_tokens=1, return_state=True)
    first = int(state.tokens[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a text that is cut would warn
        on = model.generate("c" * 40, state=state, **kwargs)
    whole = model.generate([*start, *b"ab", first, *b"c" * 40], **kwargs)
    assert on == tokenizer.detokenize(whole)


def seeded():
    model = language_model(vocabulary_size=len(PIECES), preprocessor=Preprocessor())
    model.sampler = keras_hub.samplers.RandomSampler(seed=3)
    return model


def started(directory):
    """The text of one generation, and of its first part, whose state is saved."""
    whole = seeded().generate("Once", max_new_tokens=60)
    start, state = seeded().generate("Once", max_new_tokens=20, return_state=True)
    state.save(directory / "state.npz")
    return whole, start


def test_a_saved_state_goes_on_with_the_same_text(tmp_path):
    whole, start = started(tmp_path)
    state = GenerationState.load(tmp_path / "state.npz")
    assert start + seeded().generate(None, max_new_tokens=40, state=state) == whole


@pytest.mark.slow
def test_a_saved_state_goes_on_in_another_process(tmp_path):
    whole, start = started(tmp_path)
    code = (
        "from tests.models.language.test_generated_text import GenerationState, seeded\n"
        "state = GenerationState.load('state.npz')\n"
        "print(ascii(seeded().generate(None, max_new_tokens=40, state=state)))"
    )
    code = [sys.executable, "-c", code]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert start + ast.literal_eval(done.stdout.strip().splitlines()[-1]) == whole


def test_text_of_any_bytes_is_that_of_all_together(rng):
    decode = lambda ids: bytes(ids).decode("utf-8", "replace")
    faces = list("a\xf6\U0001f600\u20ac".encode() * 50)
    for ids in (rng.integers(256, size=3000).tolist(), [255] * 200, [0xF0, 0x9F] * 100, faces):
        stream, pieces, most = TextStream(decode), [], 0
        for i in ids:
            pieces.append(stream.feed([i]))
            most = max(most, len(stream.window[0]))
        pieces.append(stream.end(whole=True))
        assert "".join(pieces) == decode(ids) and most < 32
    assert sum(map(bool, pieces[:-1])) == 200  # each character once it is whole


def test_stop_strings_are_found_over_any_borders(rng):
    text = "".join(rng.choice(list("ab"), size=400)) + "abbaabab!"
    for strings in (["abba!"], ["ab!", "bab!"], ["aaaaaaaaaaaaa", "b" * 13]):
        found = set()
        for size in (1, 2, 3, 7, len(text)):
            stops = StopStrings(strings)
            parts = [stops.feed(text[i : i + size]) for i in range(0, len(text), size)]
            found.add("".join(parts) + stops.held)
        assert len(found) == 1


def test_of_stop_strings_in_one_piece_the_first_to_end_counts():
    assert StopStrings(["bcd", "c"]).feed("abcd") == "ab"


class Long(Preprocessor):
    """Twenty tokens for each byte."""

    def generate_preprocess(self, x, sequence_length=None):
        long = ["".join(c * 20 for c in text) for text in x]
        return super().generate_preprocess(long, sequence_length)


def test_prompts_of_more_tokens_than_bytes_are_not_cut():
    model = language_model(vocabulary_size=len(PIECES), preprocessor=Long())
    text = model.generate("ab", max_new_tokens=1)
    assert text.startswith("a" * 20 + "b" * 20)
