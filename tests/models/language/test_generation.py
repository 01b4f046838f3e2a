"""Generation on token ids: exact rows, samplers, seeds, limits, states, and what is refused."""

import json

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

from keras_ssm.benchmark import memory
from keras_ssm.layers import DSS, S4D, S5, DeltaNet, Mamba, Mamba2
from keras_ssm.layers.stepwise import stepwise
from keras_ssm.models import GenerationState, SSMCausalLM
from keras_ssm.models.language.decoding import LONGEST_READ
from tests.backend_tools import BACKEND, to_numpy
from tests.mamba_recordings import MODELS, model_of, recorded
from tests.models.language.generating import language_model
from tests.recordings import slow_but
from tests.unreadable import unreadable_arrays

MIXERS = {
    "mamba": Mamba(state_dim=2, seed=0),
    "mamba2": Mamba2(state_dim=2, head_dim=4, seed=0),
    "delta": DeltaNet(2, head_dim=4, householders=2, gated=True, output_gate=True, seed=0),
    "s4d": S4D(state_dim=4, seed=0),
    "s5": S5(state_dim=4, seed=0),
}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8], [7], [1, 2, 3]]


def check_argmax(model, prompts, rows):
    """Each new token is the argmax of a full pass over all before it."""
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], "int32")
    mask = np.arange(width) < np.array([[len(row)] for row in rows])
    logits = to_numpy(model({"token_ids": ids, "padding_mask": mask}))
    for prompt, row, scores in zip(prompts, rows, logits, strict=True):
        assert row[: len(prompt)] == prompt and len(row) > len(prompt)
        expected = scores.argmax(-1)[len(prompt) - 1 : len(row) - 1]
        np.testing.assert_array_equal(row[len(prompt) :], expected)


@pytest.mark.parametrize(
    "mixer",
    MIXERS if BACKEND == "torch" else slow_but(["mamba"], MIXERS),
)
def test_greedy_of_ragged_prompts_is_argmax_of_full_passes(mixer):
    model = language_model(MIXERS[mixer])
    rows = model.generate(PROMPTS, max_new_tokens=10)
    check_argmax(model, PROMPTS, rows)
    programs = model.generate_function
    traces = programs.traces
    longer = model.generate(PROMPTS, max_length=300)
    assert [row[: len(r)] for row, r in zip(longer, rows, strict=True)] == rows
    assert [len(row) for row in longer] == [300] * 3
    stopped = model.generate(PROMPTS, max_length=300, stop_token_ids=[31, 9])
    for row, whole, prompt in zip(stopped, longer, PROMPTS, strict=True):
        new = whole[len(prompt) :]
        ends = [i for i, token in enumerate(new) if token in (31, 9)]
        assert row == prompt + (new[: ends[0] + 1] if ends else new)
    if BACKEND != "torch":  # on PyTorch each call runs the program without a trace
        assert model.generate_function is programs and programs.traces == traces
    first, state = model.generate(PROMPTS, max_new_tokens=4, return_state=True)
    rest = model.generate(None, max_new_tokens=6, state=state)
    assert [a + b for a, b in zip(first, rest, strict=True)] == rows


@pytest.mark.once("torch")
@pytest.mark.parametrize("mixer", MIXERS)
def test_prompts_that_are_read_in_pieces(mixer, rng):
    model = language_model(MIXERS[mixer])
    prompts = [rng.integers(32, size=length).tolist() for length in (2 * LONGEST_READ + 5, 3)]
    check_argmax(model, prompts, model.generate(prompts, max_new_tokens=3))


class Samples(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.found = self.read()


@pytest.mark.only("jax")
def test_generation_within_fit():
    model = language_model()
    samples = Samples()
    ids = np.arange(10).reshape(1, 10)
    ways = [
        lambda: model.generate([1, 2], max_length=6),
        lambda: model.perplexity(ids),
        lambda: to_numpy(model.score(ids)).tolist(),
    ]
    for samples.read in ways:  # of another model than the callback's, which is in step
        model.fit(ids, epochs=1, verbose=0, callbacks=[samples])
        assert samples.found == samples.read()


# One of each kind: logits of all are compared in test_published_models.py. Elsewhere a preset
# tells the same: test_language_presets.py.
@pytest.mark.once("torch")
@pytest.mark.parametrize("name", slow_but(["mamba_b", "mamba2_c", "falcon_mamba_c"], MODELS))
def test_recorded_tokens(name):
    record = recorded(name)
    model, _ = model_of(record)
    model.compile(sampler="greedy")
    expected = record["generated_full"].tolist()
    prompts = record["input_ids"][:, :6].astype("int32")
    rows = model.generate(prompts, max_length=18)
    np.testing.assert_array_equal(rows, expected)
    # A row that has read more, beside one that has read less, and lengths of no program's own.
    ragged = [expected[0][:9], expected[1][:6]]
    assert model.generate(ragged, max_length=18) == expected


class Odd(keras_hub.samplers.Sampler):
    """The most likely of the odd tokens."""

    def get_next_token(self, probabilities):
        odd = ops.arange(probabilities.shape[-1]) % 2 == 1
        return ops.argmax(ops.where(odd, probabilities, ops.zeros_like(probabilities)), axis=-1)


SAMPLERS = {
    "random": keras_hub.samplers.RandomSampler,
    "top_k": keras_hub.samplers.TopKSampler,
    "top_p": lambda seed: keras_hub.samplers.TopPSampler(p=0.9, seed=seed),
}


@pytest.mark.parametrize("name", SAMPLERS if BACKEND == "torch" else slow_but(["top_k"], SAMPLERS))
def test_the_same_seed_gives_the_same_samples(name):
    model = language_model(sampler=SAMPLERS[name](seed=5))
    first = model.generate(PROMPTS, max_new_tokens=12)
    second = model.generate(PROMPTS, max_new_tokens=12)
    assert first != second
    model.sampler = SAMPLERS[name](seed=5)
    start, state = model.generate(PROMPTS, max_new_tokens=5, return_state=True)
    pieces = model.generate(None, max_new_tokens=7, state=state, stream=True)
    rest = [np.concatenate(parts).astype(int).tolist() for parts in zip(*pieces, strict=True)]
    assert [a + b for a, b in zip(start, rest, strict=True)] == first
    assert model.generate(PROMPTS, max_new_tokens=12) == second
    # In another process the sampler is older than the state, and continues from the state's draws.
    model.sampler = SAMPLERS[name](seed=5)
    assert model.generate(None, max_new_tokens=7, state=state) == rest
    # It has drawn more numbers now.
    assert model.generate(None, max_new_tokens=7, state=state) != rest
    model.sampler = SAMPLERS[name](seed=6)
    assert model.generate(None, max_new_tokens=7, state=state) != rest


@pytest.mark.parametrize(
    "name", ["beam", "contrastive"] if BACKEND == "torch" else slow_but([], ["beam", "contrastive"])
)
def test_samplers_that_look_ahead_treat_each_row_as_if_alone(name):
    model = language_model(sampler=name)
    rows = model.generate(PROMPTS, max_length=24)
    assert rows == [model.generate(prompt, max_length=24) for prompt in PROMPTS]
    pieces = model.generate(PROMPTS[0], max_length=24, stream=True)
    assert np.concatenate(list(pieces)).tolist() == rows[0]
    start, state = model.generate(PROMPTS, max_new_tokens=4, return_state=True)
    model.compile(sampler="greedy")
    rest = model.generate(None, max_new_tokens=3, state=state)
    assert model.generate(start, max_new_tokens=3) == [
        a + b for a, b in zip(start, rest, strict=True)
    ]


NAMES = ["greedy", "top_p", "beam", "contrastive"]


@pytest.mark.parametrize("name", NAMES if BACKEND == "torch" else slow_but(["greedy"], NAMES))
def test_logits_that_are_no_numbers_choose_no_token(name):
    model = language_model(sampler=name)
    model.generate(PROMPTS, max_new_tokens=3)
    weight = model.backbone.blocks[0].mixer.out_proj.kernel
    weight.assign(weight * np.nan)
    with pytest.raises(ValueError, match=r"must be numbers.*Received: NaN in row"):
        model.generate(PROMPTS, max_new_tokens=3)


@pytest.mark.once("torch")
def test_beam_search_finds_the_likeliest_of_all():
    model = language_model(vocabulary_size=5)
    model.compile(sampler=keras_hub.samplers.BeamSampler(num_beams=5))
    found = model.generate([1, 2], max_new_tokens=2)
    pairs = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    ids = np.concatenate([np.tile([1, 2], (25, 1)), pairs], 1)
    logs = to_numpy(ops.log_softmax(model(ids)))[:, 1:3]
    scores = np.take_along_axis(logs, pairs[..., None], -1).sum((1, 2))
    assert found == ids[scores.argmax()].tolist()


@pytest.mark.once("torch")
def test_contrastive_search_compares_with_all_tokens_before():
    model = language_model()
    model.compile(sampler=keras_hub.samplers.ContrastiveSampler(k=4, alpha=0.7))
    ids = list(PROMPTS[2])
    for _ in range(8):
        hidden = to_numpy(model.backbone(np.array([ids])))
        chances = to_numpy(ops.softmax(model.logits(hidden[:, -1])))[0]
        scores = {}
        for token in np.argsort(chances)[-4:].tolist():
            y = to_numpy(model.backbone(np.array([[*ids, token]])))[0]
            y = y / np.linalg.norm(y, axis=-1, keepdims=True)
            scores[token] = 0.3 * chances[token] - 0.7 * np.max(y[:-1] @ y[-1])
        ids.append(max(scores, key=scores.get))
    assert model.generate(PROMPTS, max_new_tokens=8)[2] == ids


@pytest.mark.once("torch")
def test_samplers_of_ones_own_and_their_settings():
    model = language_model(sampler=Odd())
    (row,) = model.generate([[2, 4]], max_new_tokens=30)
    assert all(token % 2 for token in row[2:])
    model.compile(sampler=keras_hub.samplers.RandomSampler(temperature=1.0, seed=1))
    before = model.generate([2, 4], max_new_tokens=30)
    programs = model.generate_function
    model.sampler.temperature = 1e-4  # the compiled program holds the old temperature
    after = model.generate([2, 4], max_new_tokens=30)
    assert model.generate_function is not programs
    model.compile(sampler="greedy")
    assert after == model.generate([2, 4], max_new_tokens=30) != before
    with pytest.raises(ValueError, match=r"`temperature`.*temperature=0"):
        model.compile(sampler=keras_hub.samplers.RandomSampler(temperature=0))
        model.generate([1], max_length=3)
    with pytest.raises(ValueError, match=r"`k`.*32.*TopKSampler with k=40"):
        model.compile(sampler=keras_hub.samplers.TopKSampler(k=40))
        model.generate([1], max_length=3)
    with pytest.raises(ValueError, match=r"second model.*SpeculativeSampler"):
        model.compile(sampler="speculative")
        model.generate([1], max_length=3)
    model.sampler = "greedy"  # a name set by hand
    by_name = model.generate([1], max_length=3)
    model.compile(sampler="greedy")
    np.testing.assert_array_equal(by_name, model.generate([1], max_length=3))
    model.sampler = "nucleus"
    with pytest.raises(ValueError, match=r"one of greedy.*Received: sampler='nucleus'"):
        model.generate([1], max_length=3)


class Loop(keras_hub.samplers.RandomSampler):
    """Draws token by token in a loop of its own."""

    def __call__(self, next, prompt, cache, index, **kwargs):
        ids = np.array(prompt)
        for i in range(int(index), ids.shape[1]):
            logits, _, cache = next(ops.convert_to_tensor(ids), cache, i)
            ids[:, i] = to_numpy(self.get_next_token(self.compute_probabilities(logits)))
        return ops.convert_to_tensor(ids)


@pytest.mark.once("torch")
def test_a_loop_of_ones_own_draws_anew_and_goes_on_from_a_state():
    model = language_model(sampler=Loop(seed=1))
    first, state = model.generate(PROMPTS, max_new_tokens=9, return_state=True)
    second = model.generate(None, max_new_tokens=9, state=state)
    assert model.generate(PROMPTS, max_new_tokens=9) != first
    model.sampler = Loop(seed=1)
    assert model.generate(None, max_new_tokens=9, state=state) == second
    model.sampler = Loop(seed=1)
    assert model.generate(PROMPTS, max_new_tokens=9) == first


@pytest.mark.once("torch")
def test_what_comes_in_comes_out():
    model = language_model()
    row = model.generate([3, 1, 4], max_length=8)
    assert isinstance(row, list) and len(row) == 8
    array = model.generate(np.array([3, 1, 4]), max_length=8)
    assert array.dtype == "int32" and array.tolist() == row
    both = model.generate(np.array([[3, 1, 4], [1, 5, 9]]), max_new_tokens=5)
    assert both.shape == (2, 8) and both[0].tolist() == row
    # The inputs of keras_hub, with padding in any place.
    ids, mask = np.zeros((2, 8), int), np.zeros((2, 8), bool)
    ids[0, :3], mask[0, :3], ids[1, [0, 2, 7]], mask[1, [0, 2, 7]] = [3, 1, 4], 1, [1, 5, 9], 1
    padded = {"token_ids": ids, "padding_mask": mask}
    found = model.generate(padded)
    np.testing.assert_array_equal(found["token_ids"], both)
    assert found["padding_mask"].all() and found["padding_mask"].dtype == bool
    stop = int(both[0][4])
    found = model.generate_step(padded, stop_token_ids=(stop,))
    end = both[0].tolist().index(stop, 3) + 1
    assert found["padding_mask"][0].tolist() == [i < end for i in range(8)]
    assert not found["token_ids"][0, end:].any()
    stripped = model.generate(padded, max_length=10, strip_prompt=True)
    assert stripped["token_ids"][:, :5].tolist() == both[:, 3:].tolist()
    assert stripped["token_ids"].shape == (2, 7)
    pieces = list(model.generate(np.array([3, 1, 4]), max_length=8, stream=True))
    assert np.concatenate(pieces).tolist() == row and len(pieces) == 6
    assert model.generate([3, 1, 4], max_length=3) == [3, 1, 4]


def refused(match, *args, model=None, **kwargs):
    model = language_model() if model is None else model
    with pytest.raises(ValueError, match=match):
        model.generate(*args, **kwargs)


@pytest.mark.once("torch")
def test_what_is_refused():
    model = language_model()
    refused("prompt 1 is empty", [[1], []], max_length=5, model=model)
    refused("`max_length` must be at least.*of 3 tokens", [1, 2, 3], max_length=2, model=model)
    refused("`max_length` or `max_new_tokens` must say", [1, 2, 3], model=model)
    refused("pass one of", [1], max_length=2, max_new_tokens=2, model=model)
    refused("`max_new_tokens` must be a positive", [1], max_new_tokens=0, model=model)
    refused("`stop_token_ids`.*Received: 32", [1], 5, stop_token_ids=[1, 32], model=model)
    refused("from 0 to 31. Received: ids from 1 to 32", [1, 32], 5, model=model)
    for ids in ([2**32 + 5], np.array([[-(2**32) + 5]]), np.array([2**64 - 5], "uint64")):
        refused("from 0 to 31. Received: ids from", ids, 5, model=model)
    refused("must be integers", np.ones((1, 2)), 5, model=model)
    refused("need a model with a `preprocessor`", "text", 5, model=model)
    refused("`stop_strings` must be texts", [1], 5, stop_strings=3, model=model)
    refused("`stop_strings` need a preprocessor", [1], 5, stop_strings="a", model=model)
    refused("keys .'ids'", {"ids": [1]}, 5, model=model)
    refused("inputs=None", None, 5, model=model)
    refused("must have the shape of", {"token_ids": [1, 2], "padding_mask": [1]}, 5, model=model)
    mixer = DSS(state_dim=4, seed=0)
    refused("has no state", [1], max_length=5, model=language_model(mixer))


@pytest.mark.once("torch")
def test_states_of_others_are_refused(tmp_path):
    model = language_model()
    _, state = model.generate(PROMPTS, max_new_tokens=2, return_state=True)
    refused("3 rows", [1], 5, state=state, model=model)
    refused("states of the shapes", None, 5, state=state, model=language_model(hidden_dim=4))
    facts = json.loads(str(state.to_dict()["facts"]))
    for damage in (
        *({"facts": json.dumps(facts | part)} for part in ({"windows": [3]}, {"form": 1})),
        *({"tokens": tokens} for tokens in (np.ones(3), np.ones(2, "int32"))),
        {"seeds/7": np.ones(2)},
    ):
        with pytest.raises(ValueError, match="`arrays` must be what"):
            GenerationState.from_dict({**state.to_dict(), **damage})
    refused("`GenerationState`", [1], 5, state=[1.0], model=model)
    model.head.kernel.assign(2 * model.head.kernel)
    refused("other weights", None, 5, state=state, model=model)
    np.savez(tmp_path / "other.npz", tokens=np.zeros(3))
    with pytest.raises(ValueError, match="of this version"):
        GenerationState.load(tmp_path / "other.npz")
    for content in unreadable_arrays(tmp_path):
        (tmp_path / "other.npz").write_bytes(content)
        with pytest.raises(ValueError, match="`filepath` must be a file that"):
            GenerationState.load(tmp_path / "other.npz")


@pytest.mark.once("torch")
def test_adapters_of_the_backbone_are_heard(tmp_path):
    model = language_model()
    before = model.generate([1, 2], max_new_tokens=40)
    model.backbone.enable_lora(2)
    for block in model.backbone.blocks:
        kernel = block.mixer.out_proj.lora_kernel_b
        kernel.assign(ops.ones_like(kernel))
    after, state = model.generate([1, 2], max_new_tokens=40, return_state=True)
    assert after != before
    check_argmax(model, [[1, 2]], [after])
    model.save_to_preset(tmp_path / "merged")
    merged = SSMCausalLM.from_preset(tmp_path / "merged")
    merged.compile(sampler="greedy")
    assert merged.generate([1, 2], max_new_tokens=40) == after
    refused("other weights", None, 5, state=state, model=merged)


@pytest.mark.once("torch")
def test_nothing_grows_but_the_ids():
    model = language_model()
    sizes = []
    for count in (10, 300):
        _, state = model.generate(PROMPTS, max_new_tokens=count, return_state=True)
        sizes.append({name: part.nbytes for name, part in state.to_dict().items()})
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.skipif(not memory.available(), reason="the system does not tell a peak that began now")
def test_ever_more_tokens_take_the_memory_of_5_000():
    model = language_model()
    count = 25_000 if BACKEND == "torch" else 100_000  # op by op a token takes 1.5 ms

    def written(count):
        pieces = model.generate([1], max_new_tokens=count, strip_prompt=True, stream=True)
        return sum(map(len, pieces))

    assert written(5_000) == 5_000
    memory.RESET.write_text("5")
    before = memory.peak_of_process()
    assert written(count) == count
    assert memory.peak_of_process() - before < 84 * count  # a state that is kept has 320 bytes


@keras.saving.register_keras_serializable(package="tests")
class Counts(Mamba):
    """Counts the steps that Python takes."""

    steps = 0

    def advance(self, x, state):
        type(self).steps += 1
        return super().advance(x, state)


@keras.saving.register_keras_serializable(package="tests")
class Looks(Mamba):
    """Does something else for some numbers in its tensors, which no program of operations does."""

    def advance(self, x, state):
        y, state = super().advance(x, state)
        return (y if to_numpy(x).sum() > 0 else -y), state

    def evaluate(self, x, mask=None, initial_state=None, return_state=False):
        if initial_state is None:
            initial_state = self.get_initial_state(x.shape[0])
        return stepwise(self.advance, x, mask, initial_state)


@pytest.mark.only("torch")
def test_steps_run_without_python_where_they_can():
    model = language_model(Counts(state_dim=2, seed=0))
    ids = model.generate(PROMPTS[1], max_new_tokens=100)
    assert Counts.steps < 40
    check_argmax(model, PROMPTS[1:2], [ids])
    keras.utils.clear_session(free_memory=False)
    model = language_model(Looks(state_dim=2, seed=0))
    prompts = PROMPTS[1:2]
    check_argmax(model, prompts, model.generate(prompts, max_new_tokens=100))
