"""S4ND beyond the recordings: any system on any axis, streams, masks, resolutions, files."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import (
    DSS,
    LRU,
    S4,
    S4D,
    S4ND,
    S5,
    Differencing,
    LongConv,
    Mamba,
    SGConv,
    SSMBlock,
)
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.layer_cases import convolve_both_ways

pytestmark = pytest.mark.once("torch")

SIZES = (6, 5)


def build(*args, features=2, **kwargs):
    layer = S4ND(*args, seed=1, **kwargs)
    layer.build((*[None] * (layer.axes + 1), features))
    return layer


def images(rng, sizes=SIZES, batch=2, features=2):
    return rng.standard_normal((batch, *sizes, features)).astype("float32")


def from_kernels(layer, x):
    """The definition: a sum over the products of kernels, axis by axis, and the skip."""
    x, outputs, D = ops.convert_to_tensor(x), [], ops.convert_to_tensor(layer.D)
    kernels = layer.rank * layer.channels
    for c in range(kernels):
        y = x
        for i, one in enumerate(layer.axis_layers):
            y = ops.moveaxis(y, i + 1, -2)
            K = one.full_kernel(y.shape[-2])
            flat = convolve_both_ways(one, ops.reshape(y, (-1, *y.shape[-2:])), K[c::kernels])
            y = ops.moveaxis(ops.reshape(flat, y.shape), -2, i + 1)
        outputs.append(y)
    means = [sum(outputs[c :: layer.channels]) / layer.rank for c in range(layer.channels)]
    return ops.concatenate([y + x * D[c] for c, y in enumerate(means)], axis=-1)


MIXED = [DSS(4, seed=0), SGConv(6, kernel_dim=2, seed=0)]
LAYERS = {
    "s4d": {"mixer": S4D(4)},
    "products": {"mixer": S4D(4), "rank": 2, "channels": 2, "bidirectional": [False, True]},
    "dense": {"mixer": S4(4), "rank": 2, "bidirectional": False},
    "softmax_and_kernel": {"mixer": MIXED, "channels": 2},
    "three": {"mixer": [S4D(4), S4(4), S4D(4, init="inv")], "axes": 3, "bidirectional": False},
}


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_the_definition(name, rng):
    layer = build(**LAYERS[name])
    x = images(rng, SIZES if layer.axes == 2 else (3, *SIZES))
    w = rng.standard_normal((*x.shape[:-1], 2 * layer.channels)).astype("float32")
    w = ops.convert_to_tensor(w)

    def by(function):
        def loss(x):
            y = function(x)
            return ops.sum(y * w), y

        return gradients(loss, layer, x, compile=BACKEND == "jax")

    y, weights, (d_x,) = by(lambda x: from_kernels(layer, x))
    methods = ["auto", "fft"] + ["chunked"] * (name != "softmax_and_kernel")
    methods += ["recurrent"] * (layer.bidirectional is False)
    for method in methods:
        layer.method = method
        ours, found, (d_input,) = by(layer)
        assert relative_error(ours, y) < 5e-5, method
        assert relative_error(d_input, d_x) < 5e-5, method
        for key, value in weights.items():
            assert relative_error(found[key], value) < 1e-3, (method, key)


@pytest.mark.parametrize(
    ("mixer", "axis"),
    [(S4D(4), 0), (S4D(4), 1), (S5(4), 1), (LRU(4), 0)],
    ids=["first", "second", "S5", "LRU"],
)
def test_it_streams_along_one_axis(mixer, axis, rng):
    options = {} if isinstance(mixer, (S5, LRU)) else {"rank": 2, "channels": 2}
    directions = [i != axis for i in range(3)]
    layer = build(mixer, axes=3, bidirectional=directions, **options)
    assert layer.causal and layer.streams and layer.stream_axis == axis
    x = images(rng, (4, 5, 3))
    frames = np.moveaxis(x, axis + 1, 0)
    y, final = layer(x, return_state=True)
    assert relative_error(layer(x), y) < 1e-5
    later = x.copy()
    later[(slice(None),) * (axis + 1) + (slice(2, None),)] += 1.0
    until = (slice(None),) * (axis + 1) + (slice(0, 2),)
    assert relative_error(to_numpy(layer(later))[until], to_numpy(y)[until]) < 1e-5
    head, state = layer(x[until], return_state=True)
    assert tuple(state.shape[1:3]) == frames.shape[2:4]
    step_state, system = layer.get_initial_state(2, frames.shape[2:4]), layer.discretize()
    assert tuple(step_state.shape) == tuple(state.shape)
    for t in range(2):
        y_t, step_state = layer.step(frames[t], step_state, system if t else None)
        assert relative_error(y_t, np.moveaxis(to_numpy(y), axis + 1, 0)[t]) < 1e-5
    assert relative_error(step_state, to_numpy(state)) < 1e-5
    rest = (slice(None),) * (axis + 1) + (slice(2, None),)
    tail, last = layer(x[rest], initial_state=state, return_state=True)
    assert relative_error(tail, to_numpy(y)[rest]) < 1e-5
    assert relative_error(last, to_numpy(final)) < 1e-5
    # Padding on the right leaves the state alone.
    padded = np.concatenate([x[until], np.full_like(x[rest], 7.0)], axis=axis + 1)
    mask = np.zeros(padded.shape[:-1], bool)
    mask[until] = True
    short, kept = layer(padded, mask=mask, return_state=True)
    assert relative_error(to_numpy(short)[until], to_numpy(head)) < 1e-5
    assert relative_error(kept, to_numpy(state)) < 1e-5
    with pytest.raises(ValueError, match="`return_state` needs a mask that pads on the right"):
        layer(padded, mask=np.flip(mask, axis + 1), return_state=True)


def test_it_says_why_it_does_not_stream(rng):
    layer, x = build(S4D(4)), images(rng)
    for call in (
        lambda: layer(x, return_state=True),
        lambda: layer.step(x[:, 0], None),
        lambda: layer.get_initial_state(2, (5,)),
        layer.discretize,
    ):
        with pytest.raises(ValueError, match="reads every axis both ways and has no state"):
            call()
    truncated = build(S4D(4, max_kernel_length=3), bidirectional=[False, True])
    with pytest.raises(ValueError, match="has a truncated kernel"):
        truncated(x, return_state=True)
    layer = build(S4D(4), bidirectional=[False, True])
    with pytest.raises(ValueError, match=r"`frame_sizes` of \w+ must hold the 1 sizes"):
        layer.get_initial_state(2)
    with pytest.raises(ValueError, match=r"must have the sizes of a frame, \(5,\). Received: \(4,"):
        layer.step(x[:, 0], layer.get_initial_state(2, (4,)))
    with pytest.raises(ValueError, match=r"must have the sizes of a frame, \(5,\). Received: \(4,"):
        layer(x, initial_state=layer.get_initial_state(2, (4,)))


@pytest.mark.parametrize("mixer", [S4D(4), [S4(4), S5(4)]], ids=["S4D", "S4 and S5"])
def test_padded_images_are_as_cut_ones(mixer, rng):
    layer, x = build(mixer), images(rng)
    mask = np.zeros((2, *SIZES), bool)
    mask[0], mask[1, :4, :3] = True, True
    y = layer(np.where(mask[..., None], x, np.nan).astype("float32"), mask=mask)
    assert relative_error(to_numpy(y)[1:, :4, :3], to_numpy(layer(x[1:, :4, :3]))) < 1e-5
    assert relative_error(to_numpy(y)[:1], to_numpy(layer(x[:1]))) < 1e-5


def test_another_resolution_is_read_by_half_a_step():
    """A picture sampled twice as finely gives the same, the closer the finer both are."""
    layer = build(S4D(8, bandlimit=0.4), features=1)
    layer.D.assign(np.zeros((1, 1)))

    def picture(n):
        t = (np.arange(n) + 0.5) / n
        wave = np.sin(2 * np.pi * t)[:, None] * np.cos(np.pi * t)[None]
        return wave[None, ..., None].astype("float32")

    layer.step_scale = 0.25
    assert [float(s) for s in layer.step_scale] == [0.25, 0.25]
    coarse = to_numpy(layer(picture(64)))
    pooled = to_numpy(coarse)
    layer.step_scale = (0.125, 0.125)
    fine = to_numpy(layer(picture(128)))
    fine = fine.reshape(1, 64, 2, 64, 2, 1).mean(axis=(2, 4))
    assert relative_error(fine, pooled) < 0.05
    layer.step_scale = (0.25, 0.125)
    wide = np.repeat(picture(64), 1, axis=1)
    assert relative_error(layer(wide), pooled) > 0.2
    with pytest.raises(ValueError, match="`step_scale` must be one for all axes, or a list"):
        layer.step_scale = (1.0, 1.0, 1.0)


def test_first_steps_are_large_unless_the_mixer_says_more():
    def steps(layer):
        return [(one.dt_min, one.dt_max) for one in layer.axis_layers]

    assert steps(build()) == [(0.1, 1.0)] * 2
    assert steps(build([S4D(4), S4D(4, dt_min=0.02, dt_max=0.2)])) == [(0.1, 1.0), (0.02, 0.2)]
    assert steps(build(S4D(4), dt_min=1e-3, dt_max=1e-1)) == [(1e-3, 1e-1)] * 2
    assert [one.bandlimit for one in build(S4D(4), bandlimit=0.2).axis_layers] == [0.2, 0.2]
    assert build().axis_layers[0].state_dim == 64 and build().axis_layers[0].init == "lin"
    weights = build(S4D(4)).weights
    assert [w.name for w in weights].count("D") == 1
    first, second = (build(S4D(4)).axis_layers[i].get_weights() for i in (0, 1))
    assert (first[0] != second[0]).any()  # weights of their own
    again = build(S4D(4)).axis_layers[0].get_weights()
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.only("torch", "tensorflow")
@pytest.mark.parametrize(
    "arguments",
    [
        {"mixer": [S4D(4), S4(4)], "rank": 2, "bidirectional": [True, False]},
        pytest.param({"state_dim": 4, "bandlimit": 0.5}, marks=pytest.mark.once("torch")),
    ],
    ids=["mixers", "default"],
)
def test_files_unknown_sizes_and_half_precision(arguments, rng, tmp_path):
    x = images(rng)
    symbol = keras.Input((None, None, 2))
    layer = S4ND(**arguments, seed=1, name="mixer")
    model = keras.Model(symbol, layer(symbol))
    assert tuple(model.outputs[0].shape) == (None, None, None, 2)
    layer.step_scale = (0.5, 2.0)
    y = to_numpy(layer(x))
    assert relative_error(model.predict(x, verbose=0), y) < 1e-5
    if BACKEND == "tensorflow":
        import tensorflow as tf

        run = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 2])])
        for n in (1, 6):
            assert relative_error(run(x[:, :n]), to_numpy(layer(x[:, :n]))) < 1e-5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_error(loaded(x), to_numpy(model(x))) == 0
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    again = loaded.get_layer("mixer")
    assert again.get_config() == layer.get_config()
    half = S4ND.from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})
    half.build(x.shape)
    assert {w.dtype for w in half.weights} == {"float32"}
    half.set_weights(layer.get_weights())
    short = half(ops.cast(x, "bfloat16"))
    assert keras.backend.standardize_dtype(short.dtype) == "bfloat16"
    assert relative_error(ops.cast(short, "float32"), y) < 2e-2


def test_a_block_takes_frames_too(rng):
    x = images(rng, (3, 4, 5))
    mixer = S4ND(S4D(4), axes=3, bidirectional=[False, True, True], seed=0)
    block = SSMBlock(mixer, norm="batch", prenorm=True)
    y, final = block(x, return_state=True)
    state = block.get_initial_state(2, frame_sizes=(4, 5))
    for t in range(3):
        y_t, state = block.step(x[:, t], state, block.discretize())
        assert relative_error(y_t, to_numpy(y)[:, t]) < 1e-5
    assert relative_error(state, to_numpy(final)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixer": Mamba(4)}, "`mixer` must be an unbuilt time-invariant layer"),
        ({"mixer": [S4D(4)] * 3}, "`mixer` must be one for all axes, or a list of one for each"),
        ({"mixer": S4D(4, channels=2)}, "`channels` is an argument of `S4ND`"),
        ({"mixer": S5(4), "rank": 2}, "`rank` and `channels` above 1 need mixers with a kernel"),
        ({"mixer": S4D(4), "init": "lin"}, "`state_dim` and `init` are those of the default"),
        ({"mixer": LRU(4), "dt_min": 0.1}, "`dt_min` is no argument of"),
        ({"mixer": S4(4), "bandlimit": 0.1}, "`bandlimit` is no argument of"),
        ({"bidirectional": [True]}, "`bidirectional` must be one for all axes"),
        ({"bidirectional": 1}, "`bidirectional` must be True or False"),
        ({"mixer": Differencing(2)}, "`mixer` must be a layer that can read both ways"),
        ({"axes": 0}, "`axes` must be a positive integer"),
        ({"method": "direct"}, "`method` must be one of"),
        ({"method": "recurrent"}, "A bidirectional layer has no recurrent evaluation"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        S4ND(**arguments)


def test_all_step_scales_are_set_or_none():
    layer = S4ND(S4D(4))
    with pytest.raises(ValueError, match="`step_scale` must be positive"):
        layer.step_scale = (0.5, -1)
    assert layer.step_scale == (1.0, 1.0)
    layer = S4ND([S4D(4), LongConv(5)])
    with pytest.raises(ValueError, match="`step_scale` of axis_1 must be 1"):
        layer.step_scale = 0.5
    assert layer.step_scale == (1.0, 1.0)


def test_arrays_of_numpy_are_lists():
    layer = build(S4D(4), bidirectional=np.array([True, False]))
    layer.step_scale = np.array([0.5, 0.25])
    assert [float(s) for s in layer.step_scale] == [0.5, 0.25]
    assert layer.kernel(np.array([3, 4])).shape == (2, 5, 4)
    assert layer.get_config()["bidirectional"] == (True, False)


def test_the_kernel_of_truncated_mixers_is_what_the_layer_applies():
    layer = S4ND([S4D(4, max_kernel_length=2), S4(4)], bidirectional=[True, False], seed=0)
    with pytest.raises(ValueError, match="must be built first"):
        layer.kernel(3)
    layer.build((None, None, None, 2))
    impulse = np.zeros((1, 7, 3, 2), "float32")
    impulse[:, 3, 0] = 1.0
    y = to_numpy(layer(impulse))[0]
    y[3, 0] -= to_numpy(layer.D)[0]
    assert relative_error(np.moveaxis(to_numpy(layer.kernel((4, 3))), 0, -1), y) < 1e-5


def test_a_step_reads_the_skip_of_its_system(rng):
    layer, frame = build(S4D(4), bidirectional=[False, True]), images(rng)[:, 0]
    state, system = layer.get_initial_state(2, frame_sizes=(5,)), layer.discretize()
    before, _ = layer.step(frame, state, system)
    layer.D.assign(to_numpy(layer.D) + 1.0)
    after, _ = layer.step(frame, state, system)
    np.testing.assert_array_equal(to_numpy(after), to_numpy(before))
