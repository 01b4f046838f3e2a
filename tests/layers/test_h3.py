"""H3: its evaluations against the definition, states, masks, files, half precision."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import H3, SSMBlock
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from keras_ssm.ops.naive import discretize, naive, to_complex
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy, with_cheap_loops

MIXERS = {
    "one": {"state_dim": 6, "shift_dim": 3, "dt_min": 0.1, "dt_max": 0.5},
    "heads": {"state_dim": 4, "head_dim": 2, "discretization": "zoh", "chunk_size": 5},
}
METHODS = ("chunked", "fft", "recurrent") if BACKEND == "torch" else ("chunked", "fft")
ONCE = pytest.mark.once("torch")  # the same operations in another order
HEADS = pytest.param("heads", marks=ONCE)


def make(name, features=4, seed=1, **arguments):
    layer = H3(**MIXERS[name], seed=seed, **arguments)
    layer.build((None, None, features))
    rng = np.random.default_rng(2)
    layer.shift_B.assign(rng.standard_normal(layer.shift_B.shape))  # else a first unit vector
    return layer


def sequence(rng, length, batch=2):
    return rng.standard_normal((batch, length, 4)).astype("float32")


def reference(layer, x):
    """The definition, one tap, head and pair of its features at a time."""
    q, k, v = (part(x) for part in (layer.q_dense, layer.k_dense, layer.v_dense))
    B, C, N = *map(ops.convert_to_tensor, (layer.shift_B, layer.shift_C)), layer.shift_dim
    shifted = k * ops.convert_to_tensor(layer.shift_D)
    for j in range(min(N, x.shape[1])):
        tap = ops.sum(B[:, : N - j] * C[:, j:], axis=1)
        shifted = shifted + ops.pad(k[:, : x.shape[1] - j] * tap, [(0, 0), (j, 0), (0, 0)])
    S, d = layer.diagonal, layer.head_dim
    A = to_complex(-ops.exp(S.log_A_real), ops.convert_to_tensor(S.A_imag))
    dt = ops.cast(ops.exp(ops.convert_to_tensor(S.log_dt)), A.dtype)
    dA, dB = discretize(A, to_complex(S.B_real, S.B_imag), dt, layer.discretization)
    outputs = []
    for out in range(d):
        total = 0.0
        for inner in range(d):
            kv = shifted[..., inner::d] * v[..., out::d]
            s = naive(kv, dA, dB, to_complex(S.C_real, S.C_imag))[0]
            s = s + kv * ops.convert_to_tensor(S.D)[0]
            total = total + s * q[..., inner::d]
        outputs.append(total)
    return layer.output_dense(ops.concatenate(outputs, axis=-1))


@pytest.mark.parametrize(
    ("name", "length"),
    [("one", 67), *(pytest.param("heads", n, marks=ONCE) for n in (1, 11))],
)
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
        for key, value in weights.items():
            scale = max(np.abs(value).max(), 1e-2 * largest)
            assert np.abs(found[key] - value).max() / scale < 2e-4, (method, key)


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", MIXERS)
def test_float64(name, rng, float64):
    layer, x = make(name), sequence(rng, 23).astype("float64")
    y, weights, (d_x,) = gradients(lambda x: ops.sum(reference(layer, x) ** 2), layer, x)
    for method in METHODS:
        layer.method = method
        ours, found, (d_input,) = gradients(lambda x: ops.sum(layer(x) ** 2), layer, x)
        assert relative_error(ours, y) < 1e-12 and relative_error(d_input, d_x) < 1e-12
        for key, value in weights.items():
            assert relative_error(found[key], value) < 1e-11, key


def state_error(found, expected):
    return max(relative_error(found[key], to_numpy(expected[key])) for key in expected)


@pytest.mark.parametrize("name", ["one", HEADS])
@pytest.mark.parametrize("cut", [pytest.param(1, marks=ONCE), 8])
def test_any_cut_and_steps_give_the_one_pass_result(name, cut, rng):
    layer, x = make(name), sequence(rng, 12)
    run = lambda x, start: layer(x, initial_state=start, return_state=True)
    start = layer.get_initial_state(2)
    y, state = with_cheap_loops(run)(x, start)
    assert layer.state_shape(4) == {key: part.shape[1:] for key, part in state.items()}

    def pieces(x, start):
        head, between = run(x[:, :cut], start)
        rest, last = run(x[:, cut:], between)
        return ops.concatenate([head, rest], axis=1), last

    def steps(x, state):
        outputs, system = [], layer.discretize()
        for t in range(12):
            y_t, state = layer.step(x[:, t], state, system if t % 2 else None)
            outputs.append(y_t)
        return ops.stack(outputs, axis=1), state

    methods = METHODS if BACKEND == "torch" else METHODS[:1]
    for form, method in [*((pieces, method) for method in methods), (steps, methods[-1])]:
        layer.method = method
        whole, last = with_cheap_loops(form)(ops.convert_to_tensor(x), start)
        assert relative_error(whole, y) < 1e-5
        assert state_error(last, state) < 1e-5


@pytest.mark.parametrize("name", ["one", HEADS])
@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=ONCE) for k in ("left", "right")), "holes"]
)
def test_masked_rows_are_trimmed_rows(name, kind, rng):
    layer, x = make(name), sequence(rng, 15)
    mask = np.ones((2, 15), bool)
    mask[1, {"left": slice(0, 5), "right": slice(9, None), "holes": slice(4, 7)}[kind]] = False
    start = layer(x[:, :4], return_state=True)[1]
    covered = np.where(mask[..., None], x, np.nan)

    def run(x, start, mask=None):
        form = lambda x, start: layer(x, mask=mask, initial_state=start, return_state=True)
        return with_cheap_loops(form)(ops.convert_to_tensor(x), start)

    y, state = run(covered, start, mask)
    for row in range(2):
        first = {key: part[row : row + 1] for key, part in start.items()}
        alone, after = run(x[row : row + 1, mask[row]], first)
        assert relative_error(to_numpy(y)[row][mask[row]], to_numpy(alone)[0]) < 1e-5
        assert state_error({k: v[row : row + 1] for k, v in state.items()}, after) < 1e-5


@pytest.mark.once("torch", "tensorflow")
def test_what_a_mask_covers_has_no_gradient(rng):
    layer, x = make("one"), sequence(rng, 9, batch=1)
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
    layer = make("heads")
    start = layer(sequence(rng, 4), return_state=True)[1]
    mask = np.array([[False] * 6, [True] * 6])
    _, state = layer(sequence(rng, 6), mask=mask, initial_state=start, return_state=True)
    for key in start:
        assert relative_error(state[key][:1], start[key][:1]) < 1e-6
        assert relative_error(state[key][1:], start[key][1:]) > 1e-2
    y, state = layer(sequence(rng, 6, batch=0), return_state=True)
    assert tuple(y.shape) == (0, 6, 4) and {v.shape[0] for v in state.values()} == {0}


def test_files_and_lengths_unknown_in_advance(rng, tmp_path):
    layer = make("heads")
    model = keras.Sequential([keras.Input((None, 4)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    x = sequence(rng, 9)
    for count in (9, 3):
        y = loaded.predict(x[:, :count], verbose=0)
        assert (
            relative_error(y, with_cheap_loops(layer)(ops.convert_to_tensor(x[:, :count]))) < 1e-6
        )


@pytest.mark.once("torch", "jax")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("float16", marks=ONCE)])
def test_the_systems_stay_float32_under_half_precision(policy, rng):
    layer, half = make("one"), make("one", dtype=policy)
    system = {w.path.split("/", 1)[-1]: w.dtype for w in half.weights if "dense" not in w.path}
    assert set(system.values()) == {"float32"} and len(system) == 12
    half.set_weights(layer.get_weights())
    x = sequence(rng, 30)
    y, state = half(x, return_state=True)
    assert keras.backend.standardize_dtype(y.dtype) == half.compute_dtype
    assert {keras.backend.standardize_dtype(v.dtype) for v in state.values()} == {"float32"}
    assert relative_error(ops.cast(y, "float32"), layer(x)) < 5e-2


@pytest.mark.once("torch")
def test_initial_values(rng):
    layer = H3(16, seed=0)
    layer.build((None, None, 64))
    again = H3.from_config(layer.get_config())
    again.build((None, None, 64))
    for a, b in zip(layer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(to_numpy(layer.shift_B)[:, 0], 1)
    assert not to_numpy(layer.shift_B)[:, 1:].any()
    assert 0.98 / 4 < np.abs(to_numpy(layer.shift_C)).max() <= 1 / 4
    assert 0.98 / 8 < np.abs(to_numpy(layer.q_dense.kernel)).max() <= 1 / 8
    np.testing.assert_allclose(to_numpy(layer.diagonal.A_imag)[0], -np.pi * np.arange(8), rtol=1e-6)
    slow = {w.name for w in layer.weights if getattr(w, "optimizer_group", "") == "slow"}
    assert slow == {"shift_B", "log_dt", "log_A_real", "A_imag", "B_real", "B_imag"}


@pytest.mark.once("torch")
def test_truncated_kernels_see_no_further(rng):
    layer = make("one", max_kernel_length=2)
    x = sequence(rng, 9)
    _, _, (d_x,) = gradients(lambda x: ops.sum(layer(x)[:, 8]), layer, x)
    assert d_x[:, 6:].all() and np.abs(d_x[:, :6]).max() < 1e-6
    assert not layer.streams
    with pytest.raises(ValueError, match="has a truncated kernel"):
        layer(x, return_state=True)
    with pytest.raises(ValueError, match="evaluated by method='fft'"):
        layer.method = "chunked"


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: H3(head_dim=0), "`head_dim` must be a positive integer"),
        (lambda: H3(shift_dim=1), "`shift_dim` must be an integer of at least 2"),
        (lambda: H3(state_dim=5), "`state_dim` must be even"),
        (lambda: H3(init="x"), "`init` must be one of"),
        (lambda: H3(head_dim=3)(np.zeros((1, 2, 8))), "`head_dim` must divide the features"),
        (lambda: SSMBlock(H3(4)).step_scale, "`step_scale` .*shift system.*Received: a mixer H3"),
        (lambda: H3(shift_dim=np.int64(1)), "`shift_dim` must be an integer of at least 2"),
        (lambda: H3(seed=-1), "`seed` must be an integer of at least 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    assert H3(shift_dim=np.int64(4)).shift_dim == 4


@pytest.mark.once("torch")
def test_a_language_model_generates_adapts_and_becomes_a_preset(tmp_path):
    around = {"activation": None, "gate": None, "prenorm": True}
    backbone = SSMBackbone(H3(4, shift_dim=3, seed=0), 2, 4, vocabulary_size=11, **around)
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
    assert adapted == {"q_dense", "k_dense", "v_dense", "output_dense"}
    loaded.fit(rows, epochs=1, verbose=0)


@pytest.mark.once("torch")
def test_a_classifier_streams_and_its_steps_follow_the_weights(rng):
    model = SSMClassifier(SSMBackbone(H3(4, seed=0), 1, 4, input_dim=2), 3)
    mixer = model.backbone.blocks[0].mixer
    x, answers = rng.standard_normal((12, 2)).astype("float32"), []
    for _ in range(2):
        stream = model.stream()
        answers.append(np.concatenate([stream(x[t : t + 1])[0] for t in range(12)]))
        assert relative_error(answers[-1][-1:], model.predict(x[None], verbose=0)) < 1e-5
        mixer.shift_C.assign(2.0 * to_numpy(mixer.shift_C))
    assert relative_error(*answers) > 1e-2
    model.quantize("int8")
    assert relative_error(model.predict(x[None], verbose=0), answers[-1][-1:]) < 2.0
    assert mixer.q_dense.quantization_mode == "int8"
    assert mixer.diagonal.log_dt.dtype == "float32"
