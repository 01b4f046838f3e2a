"""16,384 steps in float32: accuracy, and training without NaN."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm.layers import S4, S4D, S4PTD, S5
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, gradients, to_numpy

LENGTH = 16384
INITS = ("lin", "inv", "inv2", "quad", "real", "rand")
ONCE = pytest.mark.once("torch")  # other initial values of the same operations


def float64_kernel(layer, length):
    """The kernel of the layer's float32 weights, in float64 throughout."""
    w = {v.name: to_numpy(v).astype("float64") for v in layer.weights}
    A = -np.exp(w["log_A_real"]) + 1j * w["A_imag"]
    B, C = w["B_real"] + 1j * w["B_imag"], (w["C_real"] + 1j * w["C_imag"])[0]
    z = np.exp(w["log_dt"]) * A
    if layer.discretization == "zoh":
        log_dA, dB = z, B * np.expm1(z) / A
    else:
        log_dA, dB = np.log((1 + z / 2) / (1 - z / 2)), np.exp(w["log_dt"]) * B / (1 - z / 2)
    powers = np.exp(log_dA[..., None] * np.arange(length))
    return 2 * np.einsum("hn,hnl->hl", C * dB, powers).real


# Every rule and range of dt, and each set of initial values where dt is largest.
@pytest.mark.parametrize(
    ("init", "rule", "dt_min", "dt_max", "bound"),
    [
        ("legs", "zoh", 1e-4, 1e-3, 1e-4),
        pytest.param("legs", "zoh", 1e-3, 1e-1, 1e-4, marks=ONCE),
        pytest.param("legs", "bilinear", 1e-4, 1e-1, 1e-4, marks=ONCE),
        ("legs", "bilinear", 1e-1, 1.0, 5e-4),
        *(pytest.param(n, "zoh", 1e-1, 1.0, 1e-4, marks=ONCE) for n in ("legs", *INITS)),
        pytest.param("quad", "bilinear", 1e-1, 1.0, 5e-4, marks=ONCE),
    ],
)
def test_kernel_error(init, rule, dt_min, dt_max, bound):
    layer = S4D(init=init, discretization=rule, dt_min=dt_min, dt_max=dt_max, seed=0)
    layer.build((None, None, 8))
    layer.D.assign(np.zeros((1, 8)))
    expected = float64_kernel(layer, LENGTH)
    largest = np.abs(expected).max(axis=1)
    assert (np.abs(to_numpy(layer.kernel(LENGTH)) - expected).max(axis=1) < bound * largest).all()
    impulse = np.zeros((1, LENGTH, 8), "float32")
    impulse[:, 0] = 1.0
    chunked = to_numpy(layer(impulse))[0].T
    assert (np.abs(chunked - expected).max(axis=1) < bound * largest).all()


def float64_kernel_of_s4(layer, length):
    """C dA^(128 a) dA^b dB, with the dense matrix of the layer's float32 weights."""
    w = {v.name: to_numpy(v).astype("float64") for v in layer.weights}
    both = lambda z: np.concatenate([z, z.conj()], axis=-1)
    A = both(-np.exp(w["log_A_real"]) + 1j * w["A_imag"])
    P, B = both(w["P_real"] + 1j * w["P_imag"]), both(w["B_real"] + 1j * w["B_imag"])
    C, dt = both(w["C_real"] + 1j * w["C_imag"])[0], np.exp(w["log_dt"])[..., None]
    eye = np.eye(A.shape[-1])
    M = A[..., None] * eye - np.einsum("rhi,rhj->hij", P, P.conj())
    factor = eye - 0.5 * dt * M
    dA = np.linalg.solve(factor, eye + 0.5 * dt * M)
    columns, rows = [np.linalg.solve(factor, dt * B[..., None])], [C[:, None]]
    coarse = np.linalg.matrix_power(dA, 128)
    for _ in range(127):
        columns.append(dA @ columns[-1])
        rows.append(rows[-1] @ coarse)
    table = np.concatenate(rows, axis=1) @ np.concatenate(columns, axis=2)
    return table.reshape(len(A), -1)[:, :length].real


# With a dt of 1, undamped modes turn by radians in a sample.
@pytest.mark.parametrize(
    ("init", "dt_min", "dt_max", "bound"),
    [
        ("legs", 1e-4, 1e-3, 1e-4),
        pytest.param("legs", 1e-3, 1e-1, 1e-4, marks=ONCE),
        pytest.param("legs", 1e-1, 1.0, 1e-4, marks=ONCE),
        pytest.param("fourier", 1e-3, 1e-1, 1e-4, marks=ONCE),
        pytest.param("fourier", 1e-1, 1.0, 5e-4, marks=ONCE),
    ],
)
def test_kernel_error_of_s4(init, dt_min, dt_max, bound):
    layer = S4(init=init, dt_min=dt_min, dt_max=dt_max, seed=0)
    layer.build((None, None, 4))
    expected = float64_kernel_of_s4(layer, LENGTH)
    largest = np.abs(expected).max(axis=1)
    assert (np.abs(to_numpy(layer.kernel(LENGTH)) - expected).max(axis=1) < bound * largest).all()


@pytest.mark.once("torch")
@pytest.mark.parametrize("perturbation", ["optimized", "rank1", "gaussian"])
def test_kernel_error_of_s4ptd(perturbation):
    """Large condition numbers cost digits: the kernel keeps 1e-3 in the mean square."""
    layer = S4PTD(perturbation=perturbation, seed=0)
    layer.build((None, None, 8))
    expected = float64_kernel(layer, LENGTH)
    error = np.linalg.norm(to_numpy(layer.kernel(LENGTH)) - expected, axis=1)
    assert (error < 1e-3 * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.only("jax")  # only JAX tells the memory of a compiled step
def test_memory_of_a_training_step_of_s5():
    import jax

    layer = S5(state_dim=64, seed=0)
    layer.build((None, None, 128))
    variables = layer.trainable_variables

    def loss(values, x):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return keras.ops.sum(layer(x) ** 2)

    x = jax.ShapeDtypeStruct((2, LENGTH, 128), "float32")
    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower([v.value for v in variables], x)
    needed = step.compile().memory_analysis()
    total = needed.temp_size_in_bytes + needed.argument_size_in_bytes + needed.output_size_in_bytes
    assert total <= 8 * (2 * LENGTH * 128 * 4)


STEPS = """
import resource, sys
import keras
from keras_ssm.layers import S5

layer = S5(state_dim=64, seed=0)
layer.build((None, None, 128))
weights = [v.value for v in layer.trainable_variables]
x = keras.ops.ones((int(sys.argv[1]), int(sys.argv[2]), 128))
if keras.config.backend() == "torch":
    import torch

    x.requires_grad_()
    step = lambda x: torch.autograd.grad((layer(x) ** 2).sum(), [*weights, x])
else:
    import tensorflow as tf

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [weights, x])

found = None
for _ in range(3):
    found = step(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.only("tensorflow", "torch")  # JAX tells the memory of a compiled step, see above
def test_resident_memory_of_a_training_step_of_s5():
    """Input, output, gradients and all else, from the peaks of two batch sizes."""
    peaks = []
    for batch in (2, 6):
        command = [sys.executable, "-c", STEPS, str(batch), str(LENGTH)]
        # Freed memory goes back at once, instead of staying with the allocator.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-2000:]
        peaks.append(int(process.stdout.split()[-1]))
    assert peaks[1] - peaks[0] <= 8 * (4 * LENGTH * 128 * 4)


def long_classifier():
    backbone = SSMBackbone(S4D(seed=0), num_layers=2, hidden_dim=16)
    return SSMClassifier(backbone, num_classes=2)


@pytest.mark.slow
@pytest.mark.only("jax")  # 200 long steps take minutes elsewhere
def test_training_on_long_sequences(rng):
    model = long_classifier()
    model.compile(keras_ssm.optimizers.ssm_optimizer(1e-2, 1e-3))
    x = rng.standard_normal((2, LENGTH, 1)).astype("float32")
    x[1] += np.sin(np.arange(LENGTH) / 50)[:, None]
    losses = model.fit(x, np.array([0, 1]), epochs=200, batch_size=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < 0.1 < losses[0]
    assert all(np.isfinite(to_numpy(w)).all() for w in model.weights)


def test_one_long_gradient(rng):
    model = long_classifier()
    x = rng.standard_normal((2, LENGTH, 1)).astype("float32")
    loss = lambda x: keras.ops.sum(model(x) ** 2)
    value, weights, _ = gradients(loss, model, x, compile=BACKEND == "jax")
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in weights.values())
