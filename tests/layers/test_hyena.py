"""Hyena: its evaluations against the definition, states, masks, files, half precision."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Hyena, SSMBlock
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy, with_cheap_loops

MIXERS = {
    "two": {"max_length": 16, "filter_width": 4, "shift": 0.05, "frequency": 10.0},
    "three": {"max_length": 9, "order": 3, "filter_width": 5, "filter_depth": 1, "emb_dim": 5},
}
MIXERS["three"] |= {"conv_width": 2, "train_positions": True}
METHODS = {"torch": ("fft", "direct", "recurrent"), "tensorflow": ("fft", "direct")}
METHODS = METHODS.get(BACKEND, ("fft",))
ONCE = pytest.mark.once("torch")  # the same operations in another order
TWO = pytest.param("two", marks=ONCE)


def make(name, features=4, seed=1, **arguments):
    layer = Hyena(**{**MIXERS[name], **arguments}, seed=seed)
    layer.build((None, None, features))
    return layer


def sequence(rng, length, batch=2):
    return rng.standard_normal((batch, length, 4)).astype("float32")


def convolved(x, taps):
    """Every lag by itself; `taps` are `(lags, features)`, lag 0 first."""
    shifted = lambda j: ops.pad(x[:, : x.shape[1] - j], [(0, 0), (j, 0), (0, 0)])
    return sum(shifted(j) * taps[j] for j in range(min(taps.shape[0], x.shape[1])))


def reference(layer, x):
    """The definition, one lag at a time."""
    value = ops.convert_to_tensor
    h = value(layer.positions)
    for kernel, bias in layer.filter_layers:
        h = ops.sin(value(layer.frequencies) * (ops.dot(h, value(kernel)) + value(bias)))
    h = ops.dot(h, value(layer.filter_output))
    window = ops.exp(-value(layer.times)[:, None] * value(layer.decay)) + layer.shift
    taps = ops.flip(value(layer.conv_kernel), axis=0)
    u = convolved(layer.in_proj(x), taps) + value(layer.conv_bias)
    *gates, v = [u[..., i * 4 : (i + 1) * 4] for i in range(layer.order + 1)]
    for i in range(layer.order - 1):
        v = v * gates[layer.order - 1 - i]
        taps = (h * window)[:, i * 4 : (i + 1) * 4]
        v = convolved(v, taps) + value(layer.D)[i] * v
    return layer.out_proj(v * gates[0])


# Shorter and longer than the kernels.
LENGTHS = [("three", 12), *(pytest.param("two", n, marks=ONCE) for n in (1, 11, 20))]


@pytest.mark.parametrize(("name", "length"), LENGTHS)
def test_evaluations_equal_the_definition(name, length, rng):
    layer, x = make(name), sequence(rng, length)
    w = ops.convert_to_tensor(sequence(rng, length))

    def by(evaluate):
        def loss(x):
            y = evaluate(x)
            return ops.sum(y * w), y

        return gradients(loss, layer, x, compile="loops")

    y, weights, (d_x,) = by(lambda x: reference(layer, x))
    largest = max(np.abs(g).max() for g in weights.values())
    for method in METHODS:
        layer.method = method
        ours, found, (d_input,) = by(layer)
        assert relative_error(ours, y) < 1e-5, method
        assert relative_error(d_input, d_x) < 2e-5, method
        assert set(found) == set(weights)
        for key, value in weights.items():
            scale = max(np.abs(value).max(), 1e-2 * largest)
            assert np.abs(found[key] - value).max() / scale < 2e-4, (method, key)


def state_error(found, expected):
    return max(relative_error(found[key], to_numpy(expected[key])) for key in expected)


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("name", ["three", TWO])
@pytest.mark.parametrize("cut", [pytest.param(1, marks=ONCE), 8])
def test_any_cut_and_steps_give_the_one_pass_result(name, cut, rng):
    layer, x = make(name), sequence(rng, 12)
    y, state = layer(x, return_state=True)
    assert layer.state_shape(4) == {key: part.shape[1:] for key, part in state.items()}
    methods = METHODS if BACKEND == "torch" else METHODS[:1]
    for method in methods:
        layer.method = method
        head, between = layer(x[:, :cut], return_state=True)
        rest, last = layer(x[:, cut:], initial_state=between, return_state=True)
        whole = np.concatenate([to_numpy(head), to_numpy(rest)], axis=1)
        assert relative_error(whole, y) < 1e-5
        assert state_error(last, state) < 1e-5
    stepped, system = layer.get_initial_state(2), layer.discretize()
    for t in range(12):
        y_t, stepped = layer.step(x[:, t], stepped, system if t % 2 else None)
        assert relative_error(y_t, to_numpy(y)[:, t]) < 1e-5
    assert state_error(stepped, state) < 1e-5


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("name", ["three", TWO])
@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=ONCE) for k in ("left", "right")), "holes"]
)
def test_masked_rows_are_trimmed_rows(name, kind, rng):
    layer, x = make(name), sequence(rng, 15)
    mask = np.ones((2, 15), bool)
    mask[1, {"left": slice(0, 5), "right": slice(9, None), "holes": slice(4, 7)}[kind]] = False
    start = layer(x[:, :4], return_state=True)[1]
    covered = np.where(mask[..., None], x, np.nan)
    for method in METHODS if BACKEND == "torch" else METHODS[:1]:
        layer.method = method
        y, state = layer(covered, mask=mask, initial_state=start, return_state=True)
        for row in range(2):
            first = {key: part[row : row + 1] for key, part in start.items()}
            valid = x[row : row + 1, mask[row]]
            alone, after = layer(valid, initial_state=first, return_state=True)
            assert relative_error(to_numpy(y)[row][mask[row]], to_numpy(alone)[0]) < 1e-5
            assert state_error({k: v[row : row + 1] for k, v in state.items()}, after) < 1e-5


@pytest.mark.once("torch")
def test_what_a_mask_covers_has_no_gradient(rng):
    layer, x = make("two"), sequence(rng, 9, batch=1)
    mask = np.arange(9)[None] < 6
    x[~mask] = np.nan
    valid = ops.convert_to_tensor(mask[..., None])
    loss = lambda x: ops.sum(ops.where(valid, layer(x, mask=mask), 0.0) ** 2)
    _, weights, (d_x,) = gradients(loss, layer, x)
    _, trimmed, (d_valid,) = gradients(lambda x: ops.sum(layer(x) ** 2), layer, x[:, :6])
    assert not d_x[~mask].any()
    assert relative_error(d_x[mask], d_valid[0]) < 1e-4
    for key, value in weights.items():
        assert relative_error(value, trimmed[key]) < 1e-4, key


@pytest.mark.once("torch")
def test_rows_and_batches_of_nothing(rng):
    layer = make("three", dropout=0.5)
    start = layer(sequence(rng, 4), return_state=True)[1]
    mask = np.array([[False] * 6, [True] * 6])
    _, state = layer(sequence(rng, 6), mask=mask, initial_state=start, return_state=True)
    for key in start:
        assert relative_error(state[key][:1], start[key][:1]) < 1e-6
        assert relative_error(state[key][1:], start[key][1:]) > 1e-2
    y, state = layer(sequence(rng, 6, batch=0), return_state=True, training=True)
    assert tuple(y.shape) == (0, 6, 4) and {v.shape[0] for v in state.values()} == {0}


@pytest.mark.once("torch", "tensorflow")
def test_files_and_lengths_unknown_in_advance(rng, tmp_path):
    layer = make("three")
    model = keras.Sequential([keras.Input((None, 4)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    x = sequence(rng, 12)
    for count in (12, 3):
        y = loaded.predict(x[:, :count], verbose=0)
        assert (
            relative_error(y, with_cheap_loops(layer)(ops.convert_to_tensor(x[:, :count]))) < 1e-5
        )


@pytest.mark.once("torch")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_the_kernels_stay_float32_under_half_precision(policy, rng):
    layer, half = make("two"), make("two", dtype=policy)
    own = [w for w in half.weights if "proj" not in w.path and "conv" not in w.name]
    assert {w.dtype for w in own} == {"float32"} and len(own) == 12
    half.set_weights(layer.get_weights())
    x = sequence(rng, 30)
    y, state = half(x, return_state=True)
    assert keras.backend.standardize_dtype(y.dtype) == half.compute_dtype
    assert {keras.backend.standardize_dtype(v.dtype) for v in state.values()} == {"float32"}
    assert relative_error(ops.cast(y, "float32"), layer(x)) < 5e-2


@pytest.mark.once("torch")
def test_products_are_dropped_in_training_alone(rng):
    layer, x = make("two", dropout=0.5), sequence(rng, 10)
    y = layer(x)
    assert relative_error(make("two")(x), y) < 1e-6
    assert relative_error(layer(x, training=True), y) > 1e-2
    assert relative_error(layer(x, training=True), layer(x, training=True)) > 1e-2
    layer.method = "recurrent"
    with pytest.raises(ValueError, match="`dropout` needs a method that reads the whole"):
        layer(x, training=True)
    groups = {w.name: getattr(w, "optimizer_group", None) for w in make("three").weights}
    assert groups["D"] == "undecayed"
    for name in ("positions", "frequency", "filter_kernel_1", "filter_bias_0", "filter_output"):
        assert groups[name] == "slow", name


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Hyena(0), "`max_length` must be a positive integer"),
        (lambda: Hyena(8, order=1), "`order` must be an integer of at least 2"),
        (lambda: Hyena(8, emb_dim=4), "`emb_dim` must be odd"),
        (lambda: Hyena(8, conv_width=1), "`conv_width` must be an integer of at least 2"),
        (lambda: Hyena(8, filter_depth=-1), "`filter_depth` must be an integer of at least 0"),
        (lambda: Hyena(8, frequency=float("nan")), "`frequency`"),
        (lambda: Hyena(8, dropout=1.0), "`dropout` must lie in"),
        (lambda: Hyena(8, method="chunked"), "`method` must be one of"),
        (lambda: setattr(Hyena(8), "chunk_size", 4), "does not read in chunks"),
        (lambda: SSMBlock(Hyena(8)).step_scale, "has kernels over steps.*a mixer Hyena"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.once("torch")
def test_a_language_model_generates_adapts_and_becomes_a_preset(tmp_path):
    around = {"activation": None, "gate": None, "prenorm": True}
    backbone = SSMBackbone(Hyena(12, seed=0), 2, 4, vocabulary_size=11, **around)
    model = SSMCausalLM(backbone)
    model.compile(sampler="greedy", run_eagerly=True)
    rows, prompts = [list(range(1, 9)), [4, 2, 7]], [[1, 2, 3], [5]]
    model.fit(rows, epochs=1, verbose=0)
    tokens = model.generate(prompts, max_length=6)
    model.save_to_preset(tmp_path / "lm")
    loaded = SSMCausalLM.from_preset(tmp_path / "lm")
    loaded.compile(sampler="greedy", run_eagerly=True)
    for a, b in zip(tokens, loaded.generate(prompts, max_length=6), strict=True):
        np.testing.assert_array_equal(a, b)
    for row, prompt in zip(tokens, prompts, strict=True):  # each token by a pass over all before
        for t in range(len(prompt), len(row)):
            logits = to_numpy(loaded.predict([list(row[:t])], verbose=0))
            assert row[t] == logits[0, t - 1].argmax()
    loaded.enable_lora(2)
    layers = loaded._flatten_layers()
    adapted = {layer.name for layer in layers if getattr(layer, "lora_enabled", False)}
    assert adapted == {"in_proj", "out_proj"}
    loaded.fit(rows, epochs=1, verbose=0)


@pytest.mark.once("torch")
def test_a_classifier_streams_and_its_steps_follow_the_weights(rng):
    model = SSMClassifier(SSMBackbone(Hyena(20, seed=0), 1, 4, input_dim=2), 3)
    mixer = model.backbone.blocks[0].mixer
    x, answers = rng.standard_normal((12, 2)).astype("float32"), []
    for _ in range(2):
        stream = model.stream()
        answers.append(np.concatenate([stream(x[t : t + 1])[0] for t in range(12)]))
        assert relative_error(answers[-1][-1:], model.predict(x[None], verbose=0)) < 1e-5
        mixer.filter_output.assign(20.0 * to_numpy(mixer.filter_output))
    assert relative_error(*answers) > 1e-2
    model.quantize("int8")
    assert relative_error(model.predict(x[None], verbose=0), answers[-1][-1:]) < 2.0
    assert mixer.in_proj.quantization_mode == "int8"
    assert mixer.filter_output.dtype == "float32"
