"""What every layer of the family keeps, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DSS, S4D, S5, S5PTD
from tests.backend_tools import (
    BACKEND,
    compiled,
    gradients,
    relative_error,
    to_numpy,
    with_cheap_loops,
)
from tests.layer_cases import CASES, SYSTEMS, cases, cases_and_methods, mark, naive_s5

LENGTHS = [1, 2, 63, 64, 65, 257, 1000]

# Of two similar cases, backends that compile leave one to `make test-all`.
SLOW_TO_COMPILE = [] if BACKEND == "torch" else [pytest.mark.slow]


def cases_and_lengths():
    """An odd length for each system; on PyTorch more of them, the others in `make test-all`."""
    for case in CASES:
        for n in LENGTHS:
            short = n == 65
            if BACKEND == "torch":
                short = short or case is SYSTEMS[0] or (n == 1 and case in SYSTEMS)
            yield pytest.param(
                case, n, marks=mark(case, central=n == 65) if short else pytest.mark.slow
            )


def sequence(rng, length, batch=2, features=4):
    return rng.standard_normal((batch, length, features)).astype("float32")


def applied(layer, *args, **kwargs):
    """The layer's outputs."""
    call = with_cheap_loops(lambda *args: layer(*args, **kwargs))
    return call(*map(ops.convert_to_tensor, args))


@pytest.mark.parametrize(("case", "length"), cases_and_lengths(), ids=repr)
def test_evaluations_equal_the_sequential_one(case, length, rng):
    layer = case.make()
    x = sequence(rng, length)
    w = ops.convert_to_tensor(rng.standard_normal((2, length, 4 * layer.channels)), "float32")

    def by(evaluate, compile):
        def loss(x):
            y = evaluate(x)
            return ops.sum(y * w), y

        return gradients(loss, layer, x, compile=compile)

    y, weights, (d_x,) = by(lambda x: case.reference(layer, x)[0], compile="loops")
    largest = max(np.abs(g).max() for g in weights.values())
    for method in case.methods:
        layer.method = method
        for compile in ways_to_run(case, method, length):
            ours, found, (d_input,) = by(layer, compile)
            assert relative_error(ours, y) < case.tolerance, method
            assert relative_error(d_input, d_x) < 2 * case.tolerance, method
            if case.undamped and method == "fft" and length > 65:
                continue
            for name, value in weights.items():
                # Small gradients of the ground truth carry the rounding of e^z - 1.
                scale = max(np.abs(value).max(), 1e-2 * largest)
                error = np.abs(found.get(name, 0.0) - value).max() / scale
                assert error < 20 * case.tolerance, (method, compile, name, error)


def ways_to_run(case, method, length):
    """Compiled on JAX; eager on the others, on TensorFlow also compiled where that is cheap."""
    if BACKEND == "tensorflow":
        both = case is SYSTEMS[0] and length == 65 and method != "recurrent"
        return [False, True] if both else [False]
    return [BACKEND == "jax"]


@pytest.mark.parametrize("case", cases(lambda case: case.has_state), ids=repr)
@pytest.mark.parametrize("cut", [pytest.param(1, marks=SLOW_TO_COMPILE), 50])
def test_a_state_handed_over_gives_the_one_pass_result(case, cut, rng):
    layer = case.make(chunk_size=32)
    x = sequence(rng, 100)
    expected = to_numpy(final_state(case, layer)(ops.convert_to_tensor(x)))
    for method in case.methods:
        layer.method = method
        y, state = applied(layer, x, return_state=True)
        head, between = applied(layer, x[:, :cut], return_state=True)

        def rest(x, between):
            return layer(x, initial_state=between, return_state=True)

        tail, final = with_cheap_loops(rest)(ops.convert_to_tensor(x[:, cut:]), between)
        whole = np.concatenate([to_numpy(head), to_numpy(tail)], axis=1)
        assert relative_error(whole, y) < case.tolerance
        assert relative_error(final, to_numpy(state)) < case.tolerance
        assert relative_error(state, expected) < case.tolerance


def final_state(case, layer):
    """The ground truth's final state."""
    return with_cheap_loops(lambda x: case.reference(layer, x)[1])


@pytest.mark.parametrize("case", cases(lambda case: case.has_state), ids=repr)
def test_gradients_reach_the_state(case, rng):
    layer = case.make(chunk_size=16)
    x = sequence(rng, 50)
    state = rng.standard_normal((2, *layer.state_shape(4))).astype("float32")
    w = ops.convert_to_tensor(rng.standard_normal(state.shape).astype("float32"))

    def by(evaluate):
        def loss(x, state):
            y, final = evaluate(x, state)
            return ops.sum(y * y) + ops.sum(final * w)

        return gradients(loss, layer, x, state, compile="loops")

    _, weights, inputs = by(lambda x, s: case.reference(layer, x, s))
    for method in case.methods[:2]:
        layer.method = method
        _, ours, ours_in = by(lambda x, s: layer(x, initial_state=s, return_state=True))
        for value, expected in zip(ours_in, inputs, strict=True):
            assert relative_error(value, expected) < 2 * case.tolerance
        for name, expected in weights.items():
            assert relative_error(ours[name], expected) < 50 * case.tolerance, name


@pytest.mark.parametrize("case", cases(lambda case: not case.normalises_by_length), ids=repr)
def test_masked_equals_trimmed(case, rng):
    layer = case.make(chunk_size=16)
    x = sequence(rng, 50, batch=3)
    lengths = [1, 17, 32]
    mask = np.arange(50)[None] < np.array(lengths)[:, None]
    for method in case.methods:
        layer.method = method
        if case.has_state:
            masked = lambda x, mask: layer(x, mask=mask, return_state=True)
        else:
            masked = lambda x, mask: (layer(x, mask=mask), None)
        y, states = with_cheap_loops(masked)(*map(ops.convert_to_tensor, (x, mask)))
        for row, n in enumerate(lengths):
            trimmed = applied(layer, x[row : row + 1, :n], return_state=case.has_state)
            trimmed, state = trimmed if case.has_state else (trimmed, None)
            assert relative_error(y[row : row + 1, :n], to_numpy(trimmed)) < case.tolerance
            if state is not None:
                assert relative_error(states[row : row + 1], to_numpy(state)) < case.tolerance


@pytest.mark.parametrize("case", cases(lambda case: case.has_state, central=True), ids=repr)
def test_steps_equal_the_sequence(case, rng):
    layer = case.make()
    x = sequence(rng, 30)
    y, final = applied(layer, x, return_state=True)
    state, system = layer.get_initial_state(2), layer.discretize()
    assert tuple(state.shape) == (2, *layer.state_shape(4))
    with_system = with_cheap_loops(lambda x, state, system: layer.step(x, state, system))
    without = with_cheap_loops(lambda x, state: layer.step(x, state))
    for t in range(30):
        sample = ops.convert_to_tensor(x[:, t])
        y_t, state = with_system(sample, state, system) if t % 2 else without(sample, state)
        assert relative_error(y_t, to_numpy(y)[:, t]) < case.tolerance
    assert relative_error(state, to_numpy(final)) < case.tolerance


@pytest.mark.once("torch")
@pytest.mark.parametrize("case", cases(lambda case: not case.holds_kernel), ids=repr)
def test_chunk_size_changes_nothing(case, rng):
    x = sequence(rng, 300)
    expected = to_numpy(applied(case.make(chunk_size=256), x))
    for size in (7, 1000):
        assert relative_error(applied(case.make(chunk_size=size), x), expected) < case.tolerance


@pytest.mark.parametrize("case", cases(lambda case: case.has_kernel), ids=repr)
def test_kernel_is_the_impulse_response(case):
    layer = case.make()
    layer.D.assign(np.zeros(layer.D.shape))
    n = 21
    # Each kernel is as long as the sequence: a softmax depends on that.
    impulse = np.zeros((1, n, 4), "float32")
    impulse[:, 0] = 1.0
    shape = (layer.channels, 4, n)
    kernel = to_numpy(compiled(lambda: layer.kernel(n))() if BACKEND == "jax" else layer.kernel(n))
    past = kernel.reshape(-1, *shape)[0]
    response = to_numpy(applied(layer, impulse))[0].T.reshape(shape)
    assert relative_error(response, past) < case.tolerance
    if layer.bidirectional:
        future = kernel.reshape(2, *shape)[1]
        response = to_numpy(applied(layer, impulse[:, ::-1]))[0].T.reshape(shape)
        assert relative_error(response[..., :-1], future[..., -2::-1]) < case.tolerance


@pytest.mark.parametrize(("case", "method"), cases_and_methods(known_length=False), ids=repr)
def test_length_and_batch_unknown_in_advance(case, method, rng):
    layer = case.make(chunk_size=16, method=method)
    x = sequence(rng, 100)
    symbol = keras.Input((None, 4))
    if case.has_state:
        state = keras.Input(layer.state_shape(4))
        outputs = layer(symbol, initial_state=state, return_state=True)
        model = keras.Model([symbol, state], outputs)
        s0 = rng.standard_normal((2, *layer.state_shape(4))).astype("float32")
        inputs = lambda x: [x, s0]
        expected = lambda x: applied(layer, x, initial_state=s0, return_state=True)
    else:
        model = keras.Model(symbol, layer(symbol))
        inputs, expected = lambda x: x, lambda x: (applied(layer, x),)
    assert tuple(model.outputs[0].shape) == (None, None, 4 * layer.channels)
    runs = [(compiled(model) if BACKEND == "jax" else model, (17,))]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec(
                [None, None, 4] if a.shape[1:] == (100, 4) else [None, *a.shape[1:]]
            ),
            inputs(x),
        )
        # One trace for every length; XLA compiles each length anew, so it gets one.
        ways = [(False, (1, 16, 17, 100))]
        ways += [(True, (40,))] if case is SYSTEMS[0] and method == "chunked" else []
        for jit, lengths in ways:
            run = tf.function(model, input_signature=[signature], jit_compile=jit)
            runs.append((run, lengths))
    for run, lengths in runs:
        for length in lengths:
            found = run(tree_map(ops.convert_to_tensor, inputs(x[:, :length])))
            found = found if isinstance(found, (list, tuple)) else (found,)
            for value, reference in zip(found, expected(x[:, :length]), strict=True):
                assert relative_error(value, to_numpy(reference)) < case.tolerance


def tree_map(function, x):
    return keras.tree.map_structure(function, x)


@pytest.mark.only("tensorflow")  # only TensorFlow traces unknown lengths
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("case", cases(), ids=repr)
def test_gradients_with_unknown_length(case, jit_compile, rng):
    import tensorflow as tf

    layer = case.make(chunk_size=16)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4])], jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    x = sequence(rng, 40)
    _, expected, _ = gradients(lambda x: ops.sum(layer(x) ** 2), layer, x)
    for value, reference in zip(gradient(x), expected.values(), strict=True):
        assert relative_error(value, reference) < 20 * case.tolerance


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("float16", marks=SLOW_TO_COMPILE)]
)
@pytest.mark.parametrize("case", cases(), ids=repr)
def test_half_precision_keeps_the_system_in_float32(case, policy, rng):
    layer, half = case.make(), case.make(dtype=policy)
    assert {w.dtype for w in half.weights} == {"float32"}
    half.set_weights(layer.get_weights())
    x = sequence(rng, 100)
    y = applied(half, x)
    assert keras.backend.standardize_dtype(y.dtype) == half.compute_dtype
    assert relative_error(ops.cast(y, "float32"), to_numpy(applied(layer, x))) < 1e-2
    if case.has_state:
        start = rng.standard_normal((2, *layer.state_shape(4))).astype("float32")
        go_on = lambda layer: applied(layer, x, initial_state=start, return_state=True)
        _, state = go_on(half)
        assert keras.backend.standardize_dtype(state.dtype) == "float32"
        assert relative_error(state, to_numpy(go_on(layer)[1])) < case.tolerance


@pytest.mark.parametrize("case", cases(), ids=repr)
def test_config_and_keras_file_round_trip(case, rng, tmp_path):
    layer = case.make()
    clone = type(layer).from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((20, 4)), case.make(name="mixer")])
    x = sequence(rng, 20)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert relative_error(applied(loaded, x), to_numpy(applied(model, x))) == 0
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]


@pytest.mark.parametrize("case", cases(lambda case: case.has_step), ids=repr)
def test_step_scale_is_honoured_by_a_compiled_predict(case, rng):
    layer = case.make()
    model = keras.Sequential([keras.Input((None, 4)), layer])
    x = sequence(rng, 40)
    before = model.predict(x, verbose=0)
    layer.step_scale = 2.0
    after = model.predict(x, verbose=0)
    assert relative_error(after, before) > 1e-2
    reference = with_cheap_loops(lambda x: case.reference(layer, x)[0])
    assert relative_error(after, to_numpy(reference(ops.convert_to_tensor(x)))) < case.tolerance
    layer.step_scale = 1.0
    assert relative_error(model.predict(x, verbose=0), before) == 0


@pytest.mark.once("torch")
@pytest.mark.parametrize("case", cases(), ids=repr)
def test_seed_fixes_the_weights(case):
    first, second, other = case.make(), case.make(), case.make(seed=2)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )


@pytest.mark.once("torch")
def test_a_band_limit_belongs_to_the_rate_of_the_training():
    """The same modes are heard at every `step_scale`."""
    layer = S4D(state_dim=16, bandlimit=0.2, dt_min=0.05, dt_max=0.1, seed=0)
    layer.build((None, None, 4))
    silent = to_numpy(layer.discretize().dC) == 0
    assert 0 < silent.mean() < 1
    for scale in (0.25, 4.0):
        layer.step_scale = scale
        assert ((to_numpy(layer.discretize().dC) == 0) == silent).all()


@pytest.mark.once("torch")
@pytest.mark.parametrize("case", cases(lambda case: case.has_state), ids=repr)
def test_a_row_without_valid_steps_keeps_its_state(case, rng):
    layer = case.make(chunk_size=4)
    x, mask = sequence(rng, 6), np.array([[False] * 6, [True] * 6])
    start = rng.standard_normal((2, *layer.state_shape(4))).astype("float32")
    for method in case.methods:
        layer.method = method
        _, state = applied(layer, x, mask=mask, initial_state=start, return_state=True)
        assert relative_error(state[:1], start[:1]) < 1e-6, method
        assert relative_error(state[1:], start[1:]) > 1e-2, method
        _, state = applied(layer, x, mask=mask, return_state=True)
        assert (to_numpy(state)[0] == 0).all(), method


@pytest.mark.once("torch")
def test_a_mask_attached_by_keras_is_used(rng):
    case = SYSTEMS[0]
    layer = case.make()
    x = sequence(rng, 20)
    x[:, 15:] = 0.0
    masked = keras.Sequential([keras.Input((20, 4)), keras.layers.Masking(), layer])
    assert relative_error(masked(x), to_numpy(layer(x, mask=(x != 0).any(-1)))) == 0


@pytest.mark.parametrize("discretization", ["zoh", pytest.param("bilinear", marks=SLOW_TO_COMPILE)])
@pytest.mark.parametrize("bidirectional", [pytest.param(False, marks=SLOW_TO_COMPILE), True])
def test_irregular_timesteps(bidirectional, discretization, rng):
    layer = S5(8, discretization=discretization, bidirectional=bidirectional, seed=1)
    layer.build((None, None, 4))
    x = sequence(rng, 200)
    times = rng.exponential(size=(2, 200)).astype("float32")
    w = ops.convert_to_tensor(rng.standard_normal((2, 200, 4)), "float32")

    def by(evaluate):
        return gradients(
            lambda x, times: (ops.sum(evaluate(x, times) * w), evaluate(x, times)),
            layer,
            x,
            times,
            compile=BACKEND == "jax",
        )

    y, weights, inputs = by(lambda x, times: naive_s5(layer, x, timesteps=times)[0])
    ours, found, ours_in = by(lambda x, times: layer(x, timesteps=times))
    assert relative_error(ours, y) < 1e-5
    for value, expected in zip(ours_in, inputs, strict=True):
        assert relative_error(value, expected) < 1e-4
    for name, expected in weights.items():
        assert relative_error(found[name], expected) < 2e-4, name
    same = applied(layer, x, timesteps=np.ones((2, 200), "float32"))
    assert relative_error(same, to_numpy(applied(layer, x))) < 1e-5
    if bidirectional:
        return
    steps = [ops.convert_to_tensor(times[:, t]) for t in range(3)]
    state = layer.get_initial_state(2)
    for t, step in enumerate(steps):
        y_t, state = layer.step(x[:, t], state, timesteps=step)
        assert relative_error(y_t, y[:, t]) < 1e-5


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("perturbation", "c_init"),
    [
        ("rank1", "complex_normal"),
        ("optimized", "lecun_normal"),
    ],
)
def test_s5ptd_is_the_same_with_and_without_conjugate_symmetry(perturbation, c_init, rng):
    x = sequence(rng, 65)
    y = []
    for conj_sym in (True, False):
        layer = S5PTD(
            16, perturbation, blocks=2, conj_sym=conj_sym, c_init=c_init, bidirectional=True, seed=3
        )
        layer.build((None, None, 4))
        assert layer.modes == (8 if conj_sym else 16)
        y.append(to_numpy(applied(layer, x)))
    assert relative_error(y[1], y[0]) < 1e-5


@pytest.mark.once("torch")
@pytest.mark.parametrize("variant", ["clip", "clip-no-scale"])
def test_clipped_modes_of_dss_hardly_grow(variant, rng):
    """A real part above 1e-4 counts as 1e-4, whatever training makes of it."""
    x, outputs = sequence(rng, 12), []
    for real in (1e-4, 0.5, 30.0):
        layer = DSS(state_dim=4, variant=variant, dt_min=0.1, dt_max=0.5, seed=0)
        layer.build(x.shape)
        layer.A_real.assign(ops.full((4,), real))
        outputs.append(to_numpy(layer(x)))
    assert (outputs[0] == outputs[1]).all() and (outputs[0] == outputs[2]).all()
