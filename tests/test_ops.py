"""The primitives: scans, Toeplitz matrices, powers, discretisation."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.ops import backend, boundary_states, discretize, fft_conv, kernel, toeplitz
from tests.backend_tools import BACKEND, compiled, relative_error, to_numpy


def sequential_states(a, inputs, initial, reverse):
    modes = a.shape[-1] // 2
    join = lambda z: np.concatenate([z.real, z.imag], axis=-1)  # noqa: E731
    split = lambda x: x[..., :modes] + 1j * x[..., modes:]  # noqa: E731
    order = range(inputs.shape[-2])
    state, states = split(initial), [initial]
    for m in reversed(order) if reverse else order:
        state = split(a) * state + split(inputs[..., m, :])
        states.append(join(state))
    return np.stack(states[::-1] if reverse else states, axis=-2)


@pytest.mark.parametrize("fast", ["0", "1"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunks", [1, 2, 9, 101])
def test_boundary_states(chunks, reverse, fast, rng, monkeypatch):
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", fast)
    a = rng.uniform(-0.7, 0.7, (3, 1, 8)).astype("float32")
    inputs = rng.standard_normal((3, 2, chunks, 8)).astype("float32")
    initial = rng.standard_normal((3, 2, 8)).astype("float32")
    expected = sequential_states(a, inputs, initial, reverse)
    states = boundary_states(*map(ops.convert_to_tensor, (a, inputs, initial)), reverse=reverse)
    assert relative_error(states, expected) < 1e-5


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunks", [1, 2, 13, 40])
def test_gradient_of_boundary_states(chunks, reverse, compile, rng):
    a = rng.uniform(-0.6, 0.6, (3, 1, 4)).astype("float32")
    inputs = rng.standard_normal((3, 2, chunks, 4)).astype("float32")
    initial = rng.standard_normal((3, 2, 4)).astype("float32")
    w = rng.standard_normal((3, 2, chunks + 1, 4)).astype("float32")

    def loss(a, inputs, initial):
        states = boundary_states(a, inputs, initial, reverse=reverse)
        return ops.sum(states * ops.convert_to_tensor(w))

    found = gradient(loss, (a, inputs, initial), compile)
    for index, value in enumerate(found):
        # Against central differences in float64 of the sequential form.
        direction = rng.standard_normal(value.shape)
        slope = 0.0
        for sign in (1, -1):
            moved = [x.astype("float64") for x in (a, inputs, initial)]
            moved[index] = moved[index] + sign * 1e-6 * direction
            slope += sign * (sequential_states(*moved, reverse) * w).sum() / 2e-6
        assert abs((value * direction).sum() - slope) < 1e-4 * max(1.0, abs(slope))


def gradient(loss, arrays, compile):
    if BACKEND == "jax":
        import jax

        function = jax.grad(loss, argnums=(0, 1, 2))
        return [np.asarray(g) for g in (jax.jit(function) if compile else function)(*arrays)]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def function(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = loss(*tensors)
            return tape.gradient(value, tensors)

        function = tf.function(function, jit_compile=True) if compile else function
        return [g.numpy() for g in function(*map(tf.constant, arrays))]
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    return [g.numpy() for g in torch.autograd.grad(loss(*tensors), tensors)]


def test_toeplitz(rng):
    diagonals = rng.standard_normal((2, 9)).astype("float32")
    expected = np.stack([[[d[4 + j - i] for j in range(5)] for i in range(5)] for d in diagonals])
    assert relative_error(toeplitz(ops.convert_to_tensor(diagonals)), expected) == 0


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 1000])
def test_kernel_from_a_two_level_table(length, rng):
    A = -0.1 - rng.random((2, 3)) + 3j * rng.standard_normal((2, 3))
    C = rng.standard_normal((1, 2, 3)) + 1j * rng.standard_normal((1, 2, 3))
    pair = lambda z: (ops.cast(z.real, "float32"), ops.cast(z.imag, "float32"))  # noqa: E731
    expected = 2 * (C[..., None] * np.exp(0.02 * A[..., None] * np.arange(length))).sum(2).real
    assert relative_error(kernel(pair(C), pair(0.02 * A), length), expected) < 1e-5


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("dt", [1e-4, 1e-2, 1.0, 30.0])
def test_discretization(rule, dt):
    real = -np.array([[1e-4, 0.5, 2.0, 66.0]])
    A = real + 1j * np.array([[0.0, 30.0, -400.0, 0.0]])
    B = np.array([[1.0, 1j, -1.0, 2.0 - 1j]])
    z = dt * A
    if rule == "zoh":
        dA, dB = np.exp(z), B * np.expm1(z) / A
    else:
        dA, dB = (1 + z / 2) / (1 - z / 2), dt * B / (1 - z / 2)
    pair = lambda z: (ops.cast(z.real, "float32"), ops.cast(z.imag, "float32"))  # noqa: E731
    log_dA, found = discretize.RULES[rule](pair(A), pair(B), ops.cast([[dt]], "float32"))
    log_dA, found = (to_numpy(p[0]) + 1j * to_numpy(p[1]) for p in (log_dA, found))
    phase = np.abs(log_dA.imag) * 2e-7 if rule == "zoh" else 0
    assert (np.abs(np.exp(log_dA) - dA) <= 1e-6 + phase).all()
    assert (np.abs(found - dB) <= (1e-6 + phase) * np.abs(dB) + phase * np.abs(B / A)).all()


def test_bilinear_at_its_zero():
    """z = -2 maps to dA = 0, where the logarithm ends."""
    one = ops.ones((1, 1), dtype="float32")
    log_dA, _ = discretize.bilinear((-one, 0 * one), (one, 0 * one), 2 * one)
    powers = np.exp(to_numpy(log_dA[0]) * np.arange(3))
    assert powers[0, 0] == 1 and powers[0, 1] < 1e-15


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (5, 3), (8, 8), (33, 40)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_fft_conv(length, steps, bidirectional, rng):
    u = rng.standard_normal((2, length, 3)).astype("float32")
    k = rng.standard_normal((2 if bidirectional else 1, 3, steps)).astype("float32")
    expected = np.zeros_like(u)
    for t in range(length):
        for s in range(length):
            if 0 <= t - s < steps:
                expected[:, t] += k[0, :, t - s] * u[:, s]
            elif bidirectional and 0 <= s - t - 1 < steps:
                expected[:, t] += k[1, :, s - t - 1] * u[:, s]
    y = fft_conv(ops.convert_to_tensor(u), ops.convert_to_tensor(k), bidirectional)
    assert relative_error(y, expected) < 1e-5


def test_exact_einsum_and_concrete(rng):
    a, b = rng.standard_normal((2, 4, 4)).astype("float32")
    product = backend.exact_einsum("ij,jk->ik", ops.convert_to_tensor(a), ops.convert_to_tensor(b))
    assert relative_error(product, a @ b) < 1e-6
    assert backend.concrete(ops.convert_to_tensor(a)).shape == (4, 4)
    seen = []

    def function(x):
        seen.append(backend.concrete(x))
        return x * 2

    if BACKEND != "torch":
        compiled(function)(ops.convert_to_tensor(a))
        assert seen[0] is None
