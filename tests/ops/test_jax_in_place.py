"""Loops of JAX that write in place: equal to the portable forms, and sparing with memory."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from keras_ssm.benchmark.stepping import layer_function, passes
from keras_ssm.layers import Mamba
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from keras_ssm.ops.backend import default
from keras_ssm.ops.backend.jax import gate, selective, short_conv
from keras_ssm.ops.causal_conv import _conv_silu
from keras_ssm.ops.selective_scan import _in_blocks, _projected
from tests.backend_tools import relative_error

BATCH, LENGTH, FEATURES, STATES = 2, 11, 3, 5  # segments of 4 steps: the last one overlaps
SYSTEM = {"A": (FEATURES, STATES), "B": (BATCH, LENGTH, STATES), "C": (BATCH, LENGTH, STATES)}
X = BATCH, LENGTH, FEATURES


def given(form):
    """The scan without a skip or an initial state."""
    return lambda x, dt, A, B, C: form(x, dt * dt, -A * A, B, C, None, None)


def projected(form, mask):
    def function(x, low, A, B, C, D, initial, kernel, bias):
        return form(x, low, -A * A, B, C, D, initial, (kernel, bias, mask))

    return function


def portable_projected(*tensors):
    *tensors, projection = tensors
    return _projected(*tensors, *projection)


def cases(rng):
    mask = rng.random((BATCH, LENGTH)) > 0.3
    ours = selective.selective_outputs
    low, weights = (BATCH, LENGTH, 2), ((2, FEATURES), (FEATURES,))
    conv = lambda *tensors: short_conv.fused_conv_silu(*tensors, None, _conv_silu)
    plain = lambda *tensors: _conv_silu(*tensors, None)
    begun = lambda *tensors: short_conv.fused_conv_silu(*tensors, _conv_silu)
    kernel = (4, FEATURES), (FEATURES,)
    return {
        "given": (given(ours), given(_in_blocks), [X, X, *SYSTEM.values()]),
        "projected": (
            projected(ours, mask),
            projected(portable_projected, mask),
            [X, low, *SYSTEM.values(), (FEATURES,), (BATCH, FEATURES, STATES), *weights],
        ),
        "gate": (gate.gated, default.gated, [X, X]),
        "convolution": (conv, plain, [X, *kernel]),
        "convolution after others": (begun, _conv_silu, [X, *kernel, (BATCH, 3, FEATURES)]),
    }


NAMES = "given", "projected", "gate", "convolution", "convolution after others"


@pytest.mark.parametrize("name", NAMES)
def test_values_and_both_derivatives_are_those_of_the_portable_form(name, rng, monkeypatch):
    monkeypatch.setattr(selective, "STEPS", 4)
    for module in (gate, short_conv):
        monkeypatch.setattr(module, "TOGETHER", 4 * BATCH * FEATURES)
    ours, portable, shapes = cases(rng)[name]
    inputs = [rng.standard_normal(shape) for shape in shapes]
    places = tuple(range(len(inputs)))

    def found(form):
        def loss(*tensors):
            return sum(jnp.sum(jnp.sin(z)) for z in jax.tree.leaves(form(*tensors)))

        def steepness(*tensors):
            return sum(jnp.sum(z * z) for z in jax.grad(loss, places)(*tensors))

        with jax.enable_x64(True):
            slopes = jax.value_and_grad(steepness, places)
            both = lambda *tensors: (form(*tensors), slopes(*tensors))
            return jax.tree.leaves(jax.jit(both)(*inputs))

    for i, (a, b) in enumerate(zip(found(ours), found(portable), strict=True)):
        assert relative_error(a, b) < 1e-12, i


def test_a_training_pass_of_the_whole_layer_takes_ten_activations_at_most(rng):
    layer = Mamba(state_dim=16, seed=0)
    layer.build((None, None, 128))
    x, cotangent = rng.standard_normal((2, BATCH, 1024, 128)).astype("float32")
    _, training = passes(*layer_function(layer), x, cotangent)
    needed = training.compiled().memory_analysis()
    total = needed.temp_size_in_bytes + needed.output_size_in_bytes
    assert total < 10 * 4 * BATCH * 1024 * 256


def test_a_convolution_in_bfloat16_sums_its_gradients_in_float32(monkeypatch):
    """In hundreds of parts, of which each moves the sum by less than bfloat16 tells."""
    monkeypatch.setattr(short_conv, "TOGETHER", 1)
    x = jnp.ones((1, 1000, 1), "bfloat16")
    kernel = jnp.full((2, 1), 8, "bfloat16")
    loss = lambda kernel: jnp.sum(short_conv.fused_conv_silu(x, kernel, None, None, _conv_silu))
    np.testing.assert_array_equal(jax.grad(loss)(kernel).astype("float32"), [[1000], [1000]])


def test_a_model_trains_and_comes_back_as_without_loops(rng, monkeypatch, tmp_path):
    x, y = rng.standard_normal((8, 11, 2)).astype("float32"), np.arange(8) % 2
    mask = np.arange(11) < rng.integers(5, 12, size=(8, 1))
    results = []
    for loops in (True, False):
        if loops:
            monkeypatch.setattr(selective, "STEPS", 4)
            for module in (gate, short_conv):
                monkeypatch.setattr(module, "TOGETHER", 4)
        else:
            for name in ("fused_selective", "fused_conv_silu", "gated"):
                monkeypatch.setattr(backend, name, getattr(default, name))
        keras.utils.set_random_seed(0)
        mixer = Mamba(state_dim=3, seed=0)
        model = SSMClassifier(SSMBackbone(mixer, 1, 4, input_dim=2), num_classes=2)
        inputs = {"inputs": x, "padding_mask": mask}
        losses = model.fit(inputs, y, epochs=2, batch_size=4, shuffle=False, verbose=0).history
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        again = loaded.evaluate(inputs, y, verbose=0)
        assert again == model.evaluate(inputs, y, verbose=0)
        results.append([*losses["loss"], *again, loaded.predict(inputs, verbose=0)])
    for a, b in zip(*results, strict=True):
        assert relative_error(np.asarray(a), np.asarray(b)) < 1e-5


@pytest.mark.parametrize("sizes", [(2, 5, 3, 4), (2, 5, 4, 3), (2, 3, 2, 3, 4)])
def test_a_dense_layer_has_the_gradients_of_a_product(sizes, rng):
    *lead, features, units = sizes
    x, matrix = rng.standard_normal((*lead, features)), rng.standard_normal((features, units))
    upstream = jnp.asarray(rng.standard_normal((*lead, units)), "float32")
    tensors = jnp.asarray(x, "float32"), jnp.asarray(matrix, "float32")
    for a, b in zip(
        jax.vjp(backend.dense, *tensors)[1](upstream),
        jax.vjp(jnp.matmul, *tensors)[1](upstream),
        strict=True,
    ):
        assert relative_error(a, b) < 1e-6
