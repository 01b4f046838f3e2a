"""Under a float64 policy no digit is lost: every evaluation against the sequential one."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, SequencePooling, SSMBlock
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy, with_cheap_loops
from tests.layer_cases import CASES
from tests.layers import test_goldens_hyena
from tests.ops.test_delta import check_recording

# Several chunks with a short one at the end, and a single chunk.
LENGTH, SIZES = 21, (8, 64)

# Backends that compile take one diagonal system and one system of all features.
KINDS = ("s4d_bilinear", "s5")
EAGER = BACKEND == "torch"
HERE = [case for case in CASES if EAGER or case.name in KINDS]


def bound(case):
    """Near its resonances the frequency-domain kernel of an undamped system loses digits."""
    return 1e-11 if case.undamped else 1e-12


def evaluations(case):
    if case.holds_kernel:
        return [(method, None) for method in case.methods]
    methods = case.methods if EAGER else ["chunked", "fft"]
    return [(method, SIZES[0]) for method in methods] + ([("chunked", SIZES[1])] if EAGER else [])


@pytest.mark.parametrize("case", HERE, ids=repr)
def test_values_and_gradients(case, rng, float64):
    layer = case.make()
    assert {w.dtype for w in layer.weights} == {"float64"}
    x, w = rng.standard_normal((2, 2, LENGTH, 4))
    w = ops.convert_to_tensor(np.tile(w, layer.channels))

    def by(evaluate):
        def loss(x):
            y = evaluate(x)
            return ops.sum(y * w), y

        return gradients(loss, layer, x, compile="loops")

    y, weights, (d_x,) = by(lambda x: case.reference(layer, x)[0])
    assert y.dtype == np.float64
    for how in evaluations(case):
        layer.method, layer.chunk_size = how
        ours, found, (d_input,) = by(layer)
        assert ours.dtype == np.float64
        assert relative_error(ours, y) < bound(case), how
        assert relative_error(d_input, d_x) < bound(case), how
        for name, value in weights.items():
            assert relative_error(found[name], value) < bound(case), (*how, name)


@pytest.mark.parametrize("case", [case for case in HERE if case.has_state], ids=repr)
def test_steps_and_states(case, rng, float64):
    layer = case.make(chunk_size=SIZES[0])
    x = rng.standard_normal((2, LENGTH, 4))
    reference = with_cheap_loops(lambda x: case.reference(layer, x))
    y, final = map(to_numpy, reference(ops.convert_to_tensor(x)))
    if EAGER:
        for method in case.methods:
            layer.method = method
            _, state = layer(x, return_state=True)
            assert relative_error(state, final) < bound(case), method
    state, system = layer.get_initial_state(2), layer.discretize()
    step = with_cheap_loops(lambda x, state: layer.step(x, state, system))
    for t in range(LENGTH):
        y_t, state = step(ops.convert_to_tensor(x[:, t]), state)
        assert relative_error(y_t, y[:, t]) < bound(case), t
    assert relative_error(state, final) < bound(case)


@pytest.mark.parametrize("case", [case for case in HERE if case.has_kernel], ids=repr)
def test_kernel_is_the_impulse_response(case, float64):
    layer = case.make()
    layer.D.assign(np.zeros(layer.D.shape))
    impulse = np.zeros((1, LENGTH, 4))
    impulse[:, 0] = 1.0
    response = with_cheap_loops(lambda x: case.reference(layer, x)[0])
    shape = (layer.channels, 4, LENGTH)
    response = to_numpy(response(ops.convert_to_tensor(impulse)))[0].T.reshape(shape)
    kernel = to_numpy(with_cheap_loops(lambda: layer.kernel(LENGTH))()).reshape(-1, *shape)[0]
    assert relative_error(kernel, response) < 1e-12


@pytest.mark.once("torch")
@pytest.mark.parametrize("norm", ["batch", "layer", "scalar"])
def test_blocks(norm, rng, float64):
    """A block and its parts, against NumPy."""
    block = SSMBlock(S4D(4, seed=1), activation="gelu_tanh", gate="linear", norm=norm, prenorm=True)
    x = rng.standard_normal((3, 7, 4))
    y = to_numpy(block(x, training=True))
    axes = (0, 1) if norm == "batch" else -1
    mean, variance = (f(x, axis=axes, keepdims=True) for f in (np.mean, np.var))
    z = (x - mean) / np.sqrt(variance + (0 if norm == "scalar" else block.norm_epsilon))
    z = to_numpy(block.mixer(z))
    z = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    kernel = to_numpy(block.output_dense.kernel)
    assert relative_error(y, x + z @ kernel) < 1e-12
    if norm == "batch":
        assert relative_error(block.norm.moving_mean, 0.1 * mean[0, 0]) < 1e-12
        y, state = to_numpy(block(x)), [to_numpy(v) for v in block.norm.non_trainable_variables]
        z = to_numpy(block.mixer((x - state[0]) / np.sqrt(state[1] + block.norm_epsilon)))
        z = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        assert relative_error(y, x + z @ kernel) < 1e-12
    pooled = SequencePooling()(x, mask=np.ones((3, 7), "bool"))
    assert relative_error(pooled, x.mean(axis=1)) < 1e-12


@pytest.mark.only("jax", "tensorflow")  # PyTorch: test_delta.py
def test_the_delta_rule(float64):
    check_recording("product2_gated_t24", "float64", 12)


@pytest.mark.only("jax", "tensorflow")  # PyTorch: test_goldens_hyena.py
def test_hyena(float64):
    test_goldens_hyena.check(test_goldens_hyena.CASES[0], "float64", ["fft"])
