"""Programs of XLA that write in place: equal to the portable forms, and sparing with memory."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Mamba
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from keras_ssm.ops.backend import default
from keras_ssm.ops.backend.in_place import gate, segments, selective, short_conv
from keras_ssm.ops.causal_conv import _conv_silu
from keras_ssm.ops.selective_scan import _in_blocks, _projected
from tests.backend_tools import BACKEND, BACKEND_MODULE, gradients, relative_error

BATCH, LENGTH, FEATURES, STATES = 2, 11, 3, 5  # segments of 4 steps: the last one overlaps
SYSTEM = {"A": (FEATURES, STATES), "B": (BATCH, LENGTH, STATES), "C": (BATCH, LENGTH, STATES)}
X = BATCH, LENGTH, FEATURES


@pytest.fixture
def in_short_segments(monkeypatch):
    """Of 4 steps, also on TensorFlow, for which so few are not worth a program of XLA."""
    monkeypatch.setattr(backend, "writes_in_place", lambda x: True)
    monkeypatch.setattr(selective, "STEPS", 4)
    monkeypatch.setattr(segments, "TOGETHER", 4 * BATCH * FEATURES)
    yield
    if BACKEND == "tensorflow":
        BACKEND_MODULE.by_xla.cache_clear()  # programs that were traced so


def given(form):
    """The scan without a skip or an initial state."""
    return lambda x, dt, A, B, C: form(x, dt * dt, -A * A, B, C, None, None)


def projected(form, mask):
    def function(x, low, A, B, C, D, initial, kernel, bias):
        return form(x, low, -A * A, B, C, D, initial, (kernel, bias, ops.convert_to_tensor(mask)))

    return function


def portable_projected(*tensors):
    *tensors, projection = tensors
    return _projected(*tensors, *projection)


def cases(rng):
    mask = rng.random((BATCH, LENGTH)) > 0.3
    scan = lambda *tensors: selective.fused_selective(*tensors, _in_blocks)
    steps = lambda *tensors: selective.fused_selective(*tensors[:-1], _projected, tensors[-1])
    low, weights = (BATCH, LENGTH, 2), ((2, FEATURES), (FEATURES,))
    conv = lambda *tensors: short_conv.fused_conv_silu(*tensors, None, _conv_silu)
    plain = lambda *tensors: _conv_silu(*tensors, None)
    begun = lambda *tensors: short_conv.fused_conv_silu(*tensors, _conv_silu)
    kernel = (4, FEATURES), (FEATURES,)
    return {
        "given": (given(scan), given(_in_blocks), [X, X, *SYSTEM.values()]),
        "projected": (
            projected(steps, mask),
            projected(portable_projected, mask),
            [X, low, *SYSTEM.values(), (FEATURES,), (BATCH, FEATURES, STATES), *weights],
        ),
        "gate": (gate.gated, default.gated, [X, X]),
        "convolution": (conv, plain, [X, *kernel]),
        "convolution after others": (begun, _conv_silu, [X, *kernel, (BATCH, 3, FEATURES)]),
    }


NAMES = "given", "projected", "gate", "convolution", "convolution after others"


@pytest.mark.usefixtures("in_short_segments")
@pytest.mark.parametrize("name", NAMES)
def test_values_and_both_derivatives_are_those_of_the_portable_form(name, rng):
    ours, portable, shapes = cases(rng)[name]
    inputs = [rng.standard_normal(shape) for shape in shapes]
    found, wanted = (second_derivatives(form, inputs) for form in (ours, portable))
    assert len(found) > len(inputs)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert relative_error(a, b) < 1e-12, i


def second_derivatives(form, inputs):
    """In float64: the outputs, the squared length of a gradient, and the gradient of that."""
    tree, places = keras.tree, tuple(range(len(inputs)))

    def loss(*tensors):
        return sum(ops.sum(ops.sin(z)) for z in tree.flatten(form(*tensors)))

    def squared(slopes):
        return sum(ops.sum(z * z) for z in slopes)

    if BACKEND == "jax":
        import jax

        steepness = lambda *tensors: squared(jax.grad(loss, places)(*tensors))
        slopes = jax.value_and_grad(steepness, places)
        with jax.enable_x64(True):
            found = jax.jit(lambda *tensors: (form(*tensors), slopes(*tensors)))(*inputs)
            return [*map(np.asarray, tree.flatten(found))]

    import tensorflow as tf

    tensors = [*map(tf.constant, inputs)]  # op by op: the loops of the portable form trace slowly
    with tf.GradientTape() as outer:
        outer.watch(tensors)
        with tf.GradientTape() as inner:
            inner.watch(tensors)
            total = loss(*tensors)
        steepness = squared(inner.gradient(total, tensors))
    found = form(*tensors), steepness, outer.gradient(steepness, tensors)
    return [z.numpy() for z in tree.flatten(found)]


LAYER = """
import numpy as np
from keras_ssm.benchmark.memory import peak_memory
from keras_ssm.benchmark.stepping import layer_function, passes
from keras_ssm.layers import Mamba

layer = Mamba(state_dim=16, seed=0)
layer.build((None, None, 128))
x, cotangent = np.random.default_rng(0).standard_normal((2, 2, 1024, 128)).astype("float32")
_, training = passes(*layer_function(layer), x, cotangent)
if hasattr(training, "compiled"):  # on JAX what XLA reserves
    needed = training.compiled().memory_analysis()
    print(needed.temp_size_in_bytes + needed.output_size_in_bytes)
else:
    training()
    print(peak_memory(training))
"""


@pytest.mark.cpu
def test_a_training_pass_of_the_whole_layer_takes_few_activations(capsys):
    """On TensorFlow in a process of its own: what it keeps of others it hands out in larger pieces.

    In blocks side by side it took 48 activations and more there. It takes 8.4 to 9.4 on two cores,
    and up to 11.2 where the gradient of the last matrix may come after that of the gate.
    """
    if BACKEND == "jax":
        exec(LAYER, {})
        printed = capsys.readouterr().out
    else:
        # With oneDNN its allocator counts: the operating system would count what is not in use.
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-c", LAYER]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        printed = run.stdout
    activations = int(printed.split()[-1]) / (4 * 2 * 1024 * 256)
    assert activations < 10


def test_a_convolution_in_bfloat16_sums_its_gradients_in_float32(in_short_segments, monkeypatch):
    """In hundreds of parts, of which each moves the sum by less than bfloat16 tells."""
    monkeypatch.setattr(segments, "TOGETHER", 1)

    def loss(x, kernel):
        x, kernel = (ops.cast(z, "bfloat16") for z in (x, kernel))
        return ops.sum(ops.cast(short_conv.fused_conv_silu(x, kernel, None, None, None), "float32"))

    inputs = np.ones((1, 1000, 1), "float32"), np.full((2, 1), 8, "float32")
    _, _, (_, slope) = gradients(loss, keras.layers.Identity(), *inputs)
    np.testing.assert_array_equal(slope, [[1000], [1000]])


@pytest.mark.usefixtures("in_short_segments")
def test_a_model_trains_and_comes_back_as_without_loops(rng, monkeypatch, tmp_path):
    x, y = rng.standard_normal((4, 11, 2)).astype("float32"), np.arange(4) % 2
    mask = np.arange(11) < rng.integers(5, 12, size=(4, 1))
    inputs, results = {"inputs": x, "padding_mask": mask}, []
    for loops in (True, False):
        if not loops:
            for name in ("fused_selective", "fused_conv_silu", "gated"):
                monkeypatch.setattr(backend, name, getattr(default, name))
        keras.utils.set_random_seed(0)
        mixer = Mamba(state_dim=3, seed=0)
        model = SSMClassifier(SSMBackbone(mixer, 1, 4, input_dim=2), num_classes=2)
        # The portable loops of TensorFlow trace slowly.
        model.run_eagerly = not loops and BACKEND == "tensorflow"
        losses = model.fit(inputs, y, epochs=2, batch_size=2, shuffle=False, verbose=0).history
        if loops:
            model.save(tmp_path / "model.keras")
            model = keras.models.load_model(tmp_path / "model.keras")
        results.append([*losses["loss"], model.predict(inputs, batch_size=2, verbose=0)])
    for a, b in zip(*results, strict=True):
        assert relative_error(np.asarray(a), np.asarray(b)) < 1e-5


@pytest.mark.only("jax")
@pytest.mark.parametrize("sizes", [(2, 5, 3, 4), (2, 5, 4, 3), (2, 3, 2, 3, 4)])
def test_a_dense_layer_has_the_gradients_of_a_product(sizes, rng):
    import jax

    *lead, features, units = sizes
    shapes = (*lead, features), (features, units), (*lead, units)
    *tensors, upstream = (ops.convert_to_tensor(rng.standard_normal(s), "float32") for s in shapes)
    found, wanted = (jax.vjp(form, *tensors)[1](upstream) for form in (backend.dense, ops.matmul))
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(a, b) < 1e-6


@pytest.mark.only("jax")
def test_a_dense_layer_has_derivatives_of_every_mode(rng):
    import jax
    import jax.numpy as jnp

    x, matrix = (jnp.asarray(rng.standard_normal(s), "float32") for s in ((2, 5, 3), (3, 4)))
    forms = backend.dense, functools.partial(jnp.matmul, precision="highest")
    for a, b in zip(*(jax.jvp(f, *2 * [(x, matrix)]) for f in forms), strict=True):
        assert relative_error(a, b) < 1e-6
    loss = lambda f: lambda *tensors: jnp.sum(jnp.sin(f(*tensors)))
    ours, wanted = (jax.hessian(loss(f), 1)(x, matrix) for f in forms)
    assert relative_error(ours, wanted) < 1e-5
    assert not jax.grad(loss(backend.dense), 1)(x[:0], matrix).any()
