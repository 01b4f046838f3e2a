"""Blocks of features one after another: the same values and gradients as all at once."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm import layers
from keras_ssm.ops import feature_blocks
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy

BATCH, LENGTH, FEATURES = 2, 23, 6

LAYERS = {
    "S4D": (layers.S4D, {}),
    "S4D, both directions": (layers.S4D, {"bidirectional": True}),
    "S4D, two channels, both directions": (
        layers.S4D,
        {"channels": 2, "bidirectional": True},
    ),
    "DSS": (layers.DSS, {"variant": "exp"}),
    "S4": (layers.S4, {}),
}


@pytest.fixture
def blocks(monkeypatch):
    """A function that makes blocks of some features, and a list of the sizes that were asked."""
    asked, map_blocks = [], feature_blocks.backend.map_blocks
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")  # GPU kernels have no blocks

    def spy(function, tensors, fixed, size, **static):
        asked.append(size)
        return map_blocks(function, tensors, fixed, size, **static)

    def set_size(size):
        monkeypatch.setattr(feature_blocks.backend, "runs_in_blocks", lambda: True)  # as on a CPU
        monkeypatch.setattr(feature_blocks, "SMALLEST_IN_BLOCKS", 1)
        monkeypatch.setattr(feature_blocks, "BLOCK_SAMPLES", size * BATCH * LENGTH)

    monkeypatch.setattr(feature_blocks.backend, "map_blocks", spy)
    set_size.asked = asked
    return set_size


def make(name):
    cls, options = LAYERS[name]
    layer = cls(state_dim=8, method="chunked", chunk_size=8, seed=0, dt_min=0.01, **options)
    layer.build((None, None, FEATURES))
    return layer


def samples(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def compare(layer, blocks, size, x, initial=None, return_state=False):
    inputs = [x] if initial is None else [x, initial]
    rng = np.random.default_rng(1)
    weigh = {}

    def loss(x, *state):
        found = layer(x, initial_state=state[0] if state else None, return_state=return_state)
        found = found if return_state else (found,)
        total = 0.0
        for i, y in enumerate(found):
            weight = weigh.setdefault(i, samples(rng, *y.shape))
            total = total + ops.sum(y * weight)
        return total, ops.concatenate([ops.reshape(y, (-1,)) for y in found])

    # XLA takes seconds for each layer on TensorFlow, which therefore compiles one of them.
    compile = BACKEND == "jax" or isinstance(layer, layers.DSS)
    expected = gradients(loss, layer, *inputs, compile=compile)
    assert not blocks.asked
    blocks(size)
    found = gradients(loss, layer, *inputs, compile=compile)
    assert blocks.asked
    assert relative_error(found[0], expected[0]) < 2e-6
    for key, gradient in expected[1].items():
        assert relative_error(found[1][key], gradient) < 1e-5, key
    for gradient, reference in zip(found[2], expected[2], strict=True):
        assert relative_error(gradient, reference) < 1e-5


# The others are the same branches, one at a time, and S4 goes from a state to a state. DSS is
# compiled on TensorFlow.
FIRST = ("DSS",) if BACKEND == "tensorflow" else ("S4D, two channels, both directions",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FIRST else pytest.mark.slow) for n in LAYERS]
)
def test_same_as_all_at_once(name, blocks, rng):
    compare(make(name), blocks, 2, samples(rng, BATCH, LENGTH, FEATURES))


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("S4", LENGTH),
        pytest.param("S4", 16, marks=pytest.mark.slow),
        pytest.param("S4D", 16, marks=pytest.mark.slow),
        pytest.param("S4D", LENGTH, marks=pytest.mark.slow),
    ],
)
def test_from_a_state_to_a_state(name, length, blocks, rng):
    """Also where the length is no multiple of the chunk."""
    layer = make(name)
    initial = samples(rng, BATCH, *layer.state_shape(FEATURES))
    compare(layer, blocks, 2, samples(rng, BATCH, length, FEATURES), initial, True)


def test_blocks_that_cannot_be_halved(blocks, rng):
    compare(make("S4D"), blocks, 3, samples(rng, BATCH, LENGTH, FEATURES))


@pytest.mark.only("tensorflow")  # batches of unknown size
def test_unknown_batch(blocks, rng):
    import tensorflow as tf

    layer = make("S4D")
    x = samples(rng, BATCH, LENGTH, FEATURES)
    expected = to_numpy(layer(x))
    blocks(2 * feature_blocks.USUAL_BATCH // BATCH)
    signature = [tf.TensorSpec((None, LENGTH, FEATURES), "float32")]
    found = tf.function(layer.call, input_signature=signature)(x)
    assert blocks.asked == [2]
    assert relative_error(found, expected) < 2e-6


@pytest.mark.only("jax")  # gradients of gradients through a layer
def test_gradient_of_a_gradient(blocks, rng):
    import jax

    layer = make("S4D")
    x = samples(rng, BATCH, LENGTH, FEATURES)
    weight = samples(rng, BATCH, LENGTH, FEATURES)

    def slope(values):
        mapping = list(zip(layer.trainable_variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return ops.sum(layer(x) * weight)

    def steepness(values):
        return sum(ops.sum(g * g) for g in jax.grad(slope)(values))

    values = [v.value for v in layer.trainable_variables]
    expected = jax.jit(jax.grad(steepness))(values)
    blocks(2)
    found = jax.jit(jax.grad(steepness))(values)
    assert blocks.asked
    for gradient, reference in zip(found, expected, strict=True):
        largest = np.abs(reference).max()  # 0 for D, in which the output is linear
        assert np.abs(gradient - reference).max() <= 2e-5 * largest
