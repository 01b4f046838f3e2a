"""What every layer of the family keeps, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.backend_tools import BACKEND, compiled, gradients, relative_error, to_numpy
from tests.layer_cases import CASES, WITH_STATE

LENGTHS = [1, 2, 63, 64, 65, 257, 1000]
CASES_AND_LENGTHS = [
    (case, n) for case in CASES for n in LENGTHS if case is CASES[0] or n in (1, 65)
]


def sequence(rng, length, batch=2, features=4):
    return rng.standard_normal((batch, length, features)).astype("float32")


def reference_values(case, layer, x, w):
    """Values and gradients of sum(w y) by the sequential ground truth."""

    def loss(x):
        return ops.sum(case.reference(layer, x)[0] * w)

    # Unrolled graphs compile in no reasonable time on TensorFlow and PyTorch.
    with_gradients = BACKEND == "jax" or x.shape[1] <= 257
    y = to_numpy(case.reference(layer, ops.convert_to_tensor(x))[0])
    if not with_gradients:
        return y, None
    return y, gradients(loss, layer, x, compile=BACKEND == "jax")[1:]


@pytest.mark.parametrize(("case", "length"), CASES_AND_LENGTHS, ids=repr)
def test_evaluations_equal_the_sequential_one(case, length, rng):
    layer = case.make()
    x = sequence(rng, length)
    y, _ = case.reference(layer, ops.convert_to_tensor(x))
    w = ops.convert_to_tensor(rng.standard_normal(y.shape).astype("float32"))
    y, expected = reference_values(case, layer, x, w)
    for method in case.methods:
        layer.method = method
        assert relative_error(layer(x), y) < 1e-5, method
        compiles = method != "recurrent" or BACKEND == "jax"
        if compiles:
            assert relative_error(compiled(layer)(ops.convert_to_tensor(x)), y) < 1e-5, method
        if expected is None or (method == "recurrent" and length > 257):
            continue
        loss = lambda x: ops.sum(layer(x) * w)  # noqa: E731
        # Eager JAX compiles every operation of every length: one length shows it.
        eager = BACKEND != "jax" or length == 65
        for compile in {compiles, not eager}:
            _, weights, (d_x,) = gradients(loss, layer, x, compile=compile)
            assert relative_error(d_x, expected[1][0]) < 2e-5, method
            largest = max(np.abs(g).max() for g in expected[0].values())
            for name, value in expected[0].items():
                # Small gradients of the ground truth carry the rounding of e^z - 1.
                scale = max(np.abs(value).max(), 1e-2 * largest)
                assert np.abs(weights[name] - value).max() / scale < 2e-4, (method, name)


@pytest.mark.parametrize("case", WITH_STATE, ids=repr)
@pytest.mark.parametrize("cut", [1, 100])
def test_a_state_handed_over_gives_the_one_pass_result(case, cut, rng):
    layer = case.make(chunk_size=32)
    x = sequence(rng, 200)
    for method in case.methods:
        layer.method = method
        y, state = layer(x, return_state=True)
        head, between = layer(x[:, :cut], return_state=True)
        tail, final = layer(x[:, cut:], initial_state=between, return_state=True)
        assert relative_error(ops.concatenate([head, tail], axis=1), to_numpy(y)) < 1e-5
        assert relative_error(final, to_numpy(state)) < 1e-5
        _, expected = case.reference(layer, ops.convert_to_tensor(x))
        assert relative_error(state, to_numpy(expected)) < 1e-5


@pytest.mark.parametrize("case", WITH_STATE, ids=repr)
def test_gradients_reach_the_state(case, rng):
    layer = case.make(chunk_size=16)
    x, state = sequence(rng, 50), rng.standard_normal((2, 4, 8)).astype("float32")
    w = ops.convert_to_tensor(rng.standard_normal(state.shape).astype("float32"))

    def by(evaluate):
        def loss(x, state):
            y, final = evaluate(x, state)
            return ops.sum(y * y) + ops.sum(final * w)

        return gradients(loss, layer, x, state, compile=BACKEND == "jax")

    _, weights, inputs = by(lambda x, s: case.reference(layer, x, s))
    for method in ("chunked", "fft"):
        layer.method = method
        _, ours, ours_in = by(lambda x, s: layer(x, initial_state=s, return_state=True))
        for value, expected in zip(ours_in, inputs, strict=True):
            assert relative_error(value, expected) < 2e-5
        for name, expected in weights.items():
            assert relative_error(ours[name], expected) < 5e-4, name


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_masked_equals_trimmed(case, rng):
    layer = case.make(chunk_size=16)
    x = sequence(rng, 50, batch=3)
    lengths = [1, 17, 32]
    mask = np.arange(50)[None] < np.array(lengths)[:, None]
    for method in case.methods:
        layer.method = method
        if case.has_state:
            y, states = layer(x, mask=mask, return_state=True)
        else:
            y, states = layer(x, mask=mask), [None] * 3
        for row, n in enumerate(lengths):
            trimmed = layer(x[row : row + 1, :n], return_state=case.has_state)
            trimmed, state = trimmed if case.has_state else (trimmed, None)
            assert relative_error(y[row : row + 1, :n], to_numpy(trimmed)) < 1e-5
            if state is not None:
                assert relative_error(states[row : row + 1], to_numpy(state)) < 1e-5


@pytest.mark.parametrize("case", WITH_STATE, ids=repr)
def test_steps_equal_the_sequence(case, rng):
    layer = case.make()
    x = sequence(rng, 30)
    y, final = layer(x, return_state=True)
    state, system = layer.get_initial_state(2), layer.discretize()
    for t in range(30):
        y_t, state = layer.step(x[:, t], state, system if t % 2 else None)
        assert relative_error(y_t, to_numpy(y)[:, t]) < 1e-5
    assert relative_error(state, to_numpy(final)) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_chunk_size_changes_nothing(case, rng):
    x = sequence(rng, 300)
    expected = to_numpy(case.make(chunk_size=256)(x))
    for size in (7, 64, 1000):
        assert relative_error(case.make(chunk_size=size)(x), expected) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_kernel_is_the_impulse_response(case):
    layer = case.make()
    layer.D.assign(np.zeros(layer.D.shape))
    impulse = np.zeros((1, 41, 4), "float32")
    impulse[:, 20] = 1.0
    response = to_numpy(layer(impulse))[0].T.reshape(layer.channels, 4, 41)
    kernel = to_numpy(layer.kernel(21))
    if layer.bidirectional:
        kernel = kernel.reshape(2, layer.channels, 4, 21)
        assert relative_error(response[..., :20], kernel[1, ..., 19::-1]) < 1e-5
        kernel = kernel[0]
    assert relative_error(response[..., 20:], kernel.reshape(layer.channels, 4, 21)) < 1e-5


CASES_AND_METHODS = [(case, method) for case in CASES for method in case.methods]


@pytest.mark.parametrize(("case", "method"), CASES_AND_METHODS, ids=repr)
def test_length_and_batch_unknown_in_advance(case, method, rng):
    layer = case.make(chunk_size=16, method=method)
    x = sequence(rng, 100)
    symbol = keras.Input((None, 4))
    if case.has_state:
        state = keras.Input(layer.state_shape(4))
        outputs = layer(symbol, initial_state=state, return_state=True)
        model = keras.Model([symbol, state], outputs)
        s0 = rng.standard_normal((2, *layer.state_shape(4))).astype("float32")
        inputs = lambda x: [x, s0]  # noqa: E731
        expected = lambda x: layer(x, initial_state=s0, return_state=True)  # noqa: E731
    else:
        model = keras.Model(symbol, layer(symbol))
        inputs, expected = lambda x: x, lambda x: (layer(x),)
    assert tuple(model.outputs[0].shape) == (None, None, 4 * layer.channels)
    runs = [(model, (1, 17))]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec(
                [None, None, 4] if a.shape[1:] == (100, 4) else [None, *a.shape[1:]]
            ),
            inputs(x),
        )
        # One trace for every length; XLA compiles each length anew, so it gets fewer.
        for jit, lengths in ((False, (1, 16, 17, 100)), (True, (5, 40))):
            run = tf.function(model, input_signature=[signature], jit_compile=jit)
            runs.append((run, lengths))
    for run, lengths in runs:
        for length in lengths:
            found = run(tree_map(ops.convert_to_tensor, inputs(x[:, :length])))
            found = found if isinstance(found, (list, tuple)) else (found,)
            for value, reference in zip(found, expected(x[:, :length]), strict=True):
                assert relative_error(value, to_numpy(reference)) < 1e-5


def tree_map(function, x):
    return keras.tree.map_structure(function, x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow traces unknown lengths")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_gradients_with_unknown_length(case, jit_compile, rng):
    import tensorflow as tf

    layer = case.make(chunk_size=16)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4])], jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    for length in (5, 40):
        x = sequence(rng, length)
        _, expected, _ = gradients(lambda x: ops.sum(layer(x) ** 2), layer, x)
        for value, reference in zip(gradient(x), expected.values(), strict=True):
            assert relative_error(value, reference) < 2e-4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_half_precision_keeps_the_system_in_float32(case, policy, rng):
    layer, half = case.make(), case.make(dtype=policy)
    assert {w.dtype for w in half.weights} == {"float32"}
    half.set_weights(layer.get_weights())
    x = sequence(rng, 100)
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == half.compute_dtype
    assert relative_error(ops.cast(y, "float32"), to_numpy(layer(x))) < 1e-2
    if case.has_state:
        y, state = half(x, return_state=True)
        assert keras.backend.standardize_dtype(state.dtype) == "float32"
        y, again = half(x, initial_state=state, return_state=True)
        expected = layer(x, initial_state=state, return_state=True)[1]
        assert relative_error(again, to_numpy(expected)) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_config_and_keras_file_round_trip(case, rng, tmp_path):
    layer = case.make()
    clone = type(layer).from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((20, 4)), case.make(name="mixer")])
    x = sequence(rng, 20)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert relative_error(loaded(x), to_numpy(model(x))) == 0
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_step_scale_is_honoured_by_a_compiled_predict(case, rng):
    layer = case.make()
    model = keras.Sequential([keras.Input((None, 4)), layer])
    x = sequence(rng, 40)
    before = model.predict(x, verbose=0)
    layer.step_scale = 2.0
    after = model.predict(x, verbose=0)
    assert relative_error(after, before) > 1e-2
    expected, _ = case.reference(layer, ops.convert_to_tensor(x))
    assert relative_error(after, to_numpy(expected)) < 1e-5
    layer.step_scale = 1.0
    assert relative_error(model.predict(x, verbose=0), before) == 0


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_seed_fixes_the_weights(case):
    first, second, other = case.make(), case.make(), case.make(seed=2)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )


def test_a_mask_attached_by_keras_is_used(rng):
    case = CASES[0]
    layer = case.make()
    x = sequence(rng, 20)
    x[:, 15:] = 0.0
    masked = keras.Sequential([keras.Input((20, 4)), keras.layers.Masking(), layer])
    assert relative_error(masked(x), to_numpy(layer(x, mask=(x != 0).any(-1)))) == 0
