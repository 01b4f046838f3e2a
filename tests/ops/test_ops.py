"""The primitives: scans, Toeplitz matrices, powers, discretisation."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.ops import (
    DenseBank,
    DiagonalBank,
    backend,
    discretize,
    dplr_bilinear,
    fft_conv,
    growing_chunked,
    kernel,
    mimo,
    pair,
    scan,
    state_passing,
    step,
    toeplitz,
)
from keras_ssm.ops.powers import powers
from keras_ssm.ops.window import direct_conv
from tests.backend_tools import (
    BACKEND,
    compiled,
    gradients,
    relative_error,
    to_numpy,
    with_cheap_loops,
)


def sequential_states(a, inputs, initial, reverse):
    """States after each step of x = a x + s, in complex NumPy."""
    modes = a.shape[-1] // 2
    join = lambda z: np.concatenate([z.real, z.imag], axis=-1)
    split = lambda x: x[..., :modes] + 1j * x[..., modes:]
    steps = inputs.shape[-2]
    order = range(steps)
    state, states = split(initial), []
    for m in reversed(order) if reverse else order:
        state = split(a[..., m if a.shape[-2] > 1 else 0, :]) * state + split(inputs[..., m, :])
        states.append(join(state))
    return np.stack(states[::-1] if reverse else states, axis=-2)


def dense_states(F, inputs, initial, reverse):
    """States after each step of x = (I + F) x + s."""
    order = range(inputs.shape[2])
    state, states = initial, []
    for m in reversed(order) if reverse else order:
        state = state + np.einsum("hij,hbj->hbi", F, state) + inputs[:, :, m]
        states.append(state)
    return np.stack(states[::-1] if reverse else states, axis=2)


def scan_arrays(rng, steps, varies):
    """A transition (of each step, or of all), inputs and an initial state."""
    lead = (3, 2, steps) if varies else (3, 1, 1)
    a = rng.uniform(-0.6, 0.6, (*lead, 4)).astype("float32")
    inputs = rng.standard_normal((3, 2, steps, 4)).astype("float32")
    return a, inputs, rng.standard_normal((3, 2, 4)).astype("float32")


def dense_arrays(rng, steps, _):
    F = rng.uniform(-0.5, 0.2, (3, 4, 4)).astype("float32") - 0.5 * np.eye(4, dtype="float32")
    inputs = rng.standard_normal((3, 2, steps, 4)).astype("float32")
    return F, inputs, rng.standard_normal((3, 2, 4)).astype("float32")


def passed(transition, inputs, initial, reverse):
    """The states after each step, from those before it and the last one."""
    before, last = state_passing(transition, inputs, initial, reverse)
    if reverse:
        return ops.concatenate([last[:, :, None], before[:, :, :-1]], axis=2)
    return ops.concatenate([before[:, :, 1:], last[:, :, None]], axis=2)


def diagonal_chunks(a, inputs, initial, reverse):
    return passed(a[:, 0, 0], inputs, initial, reverse)


def some(all, quick):
    """Parameters: where compiling takes long, all but the quick ones are marked as slow."""
    slow = [] if BACKEND == "torch" else [pytest.mark.slow]
    return [
        pytest.param(*(p if isinstance(p, tuple) else (p,)), marks=[] if p in quick else slow)
        for p in all
    ]


SCANS = {
    "same": (scan_arrays, scan, sequential_states, False),
    "varying": (scan_arrays, scan, sequential_states, True),
    "chunks": (scan_arrays, diagonal_chunks, sequential_states, False),
    "dense": (dense_arrays, passed, dense_states, None),
}


# Both directions of a scan, and a carry of each kind: the other direction is the same program.
WAYS = list(itertools.product([False, True], SCANS))
QUICK_WAYS = [(False, "same"), (True, "varying"), (False, "chunks"), (True, "dense")]


@pytest.mark.parametrize(("reverse", "kind"), some(WAYS, QUICK_WAYS))
@pytest.mark.parametrize("steps", some([1, 2, 9, 40, 301], quick=[301]))
def test_scans(steps, reverse, kind, rng):
    make, function, reference, varies = SCANS[kind]
    arrays = make(rng, steps, varies)
    run = compiled(lambda *x: function(*x, reverse=reverse))
    states = run(*map(ops.convert_to_tensor, arrays))
    assert relative_error(states, reference(*arrays, reverse)) < 1e-5


@pytest.mark.parametrize("kind", ["chunks", "dense"])
@pytest.mark.parametrize("reverse", [False, True])
def test_state_passing_starts_with_the_initial_state(reverse, kind, rng):
    arrays = SCANS[kind][0](rng, 5, False)
    transition = arrays[0][:, 0, 0] if kind == "chunks" else arrays[0]
    tensors = map(ops.convert_to_tensor, (transition, *arrays[1:]))
    before, _ = state_passing(*tensors, reverse=reverse)
    np.testing.assert_array_equal(to_numpy(before)[:, :, -1 if reverse else 0], arrays[2])


@pytest.mark.parametrize(("reverse", "kind"), some(WAYS, QUICK_WAYS))
@pytest.mark.parametrize("steps", some([1, 13, 150], quick=[13]))
def test_gradients_of_scans(steps, reverse, kind, rng):
    make, function, reference, varies = SCANS[kind]
    arrays = make(rng, steps, varies)
    w = rng.standard_normal((3, 2, steps, 4)).astype("float32")

    def loss(*arrays):
        return ops.sum(function(*arrays, reverse=reverse) * ops.convert_to_tensor(w))

    found = gradient(loss, arrays, compile=True)
    if steps == 13:
        eager = gradient(loss, arrays, compile=False)
        assert max(map(relative_error, eager, found)) < 1e-5
    for index, value in enumerate(found):
        # Against central differences in float64 of the sequential form.
        direction = rng.standard_normal(value.shape)
        slope = 0.0
        for sign in (1, -1):
            moved = [x.astype("float64") for x in arrays]
            moved[index] = moved[index] + sign * 1e-6 * direction
            slope += sign * (reference(*moved, reverse) * w).sum() / 2e-6
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

    tensors = [ops.convert_to_tensor(x).requires_grad_() for x in arrays]
    return [to_numpy(g) for g in torch.autograd.grad(loss(*tensors), tensors)]


def test_product_of_joined_tensors(rng):
    a, b = rng.standard_normal((5, 6)), rng.standard_normal((2, 5, 6))
    found = pair.product(*(ops.convert_to_tensor(x, dtype="float32") for x in (a, b)))
    complex_a, complex_b = (x[..., :3] + 1j * x[..., 3:] for x in (a, b))
    expected = complex_a * complex_b
    expected = np.concatenate([expected.real, expected.imag], axis=-1)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize(("features", "size"), [(6, 4), (4, 6)])
def test_project_and_its_gradients(features, size, rng):
    arrays = [rng.standard_normal(shape) for shape in [(3, 7, features), (features, size)]]
    arrays.append(rng.standard_normal((3, 7, size)))
    arrays = [x.astype("float32") for x in arrays]
    x, matrix, w = arrays

    def loss(x, matrix, w):
        return ops.sum(backend.project(x, matrix) * w)

    found = gradient(loss, arrays, compile=False)
    expected = w @ matrix.T, np.einsum("blm,bln->mn", x, w), x @ matrix
    assert max(map(relative_error, found, expected)) < 1e-5
    row = to_numpy(backend.project(*map(ops.convert_to_tensor, (x[:, 0], matrix))))
    np.testing.assert_allclose(row, x[:, 0] @ matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", some([1, 2, 13], quick=[13]))
@pytest.mark.parametrize("directions", some([1, 2], quick=[2]))
def test_mimo(directions, length, rng):
    """Against the recurrence in NumPy, one sample at a time."""
    modes, features = 3, 4
    u, initial = rng.standard_normal((2, length, features)), rng.standard_normal((2, 2 * modes))
    dA, dB = 0.5 * rng.standard_normal(2 * modes), rng.standard_normal((features, 2 * modes))
    C, D = rng.standard_normal((directions, features, 2 * modes)), rng.standard_normal(features)
    arrays = (u, dA, dB, C, D, initial)
    y, last = mimo(*(ops.convert_to_tensor(x, dtype="float32") for x in arrays))

    def scanned(steps, state):
        for t in steps:
            re, im = pair.multiply(pair.split(dA), pair.split(state))
            state = np.concatenate([re, im], axis=-1) + u[:, t] @ dB
            yield t, state

    expected = u * D
    for t, state in scanned(range(length), initial):
        expected[:, t] += state @ C[0].T
    assert relative_error(last, state) < 1e-5
    if directions == 2:
        for t, state in scanned(reversed(range(length)), np.zeros_like(initial)):
            expected[:, t] += state @ C[1].T
    assert relative_error(y, expected) < 1e-5


@pytest.mark.parametrize("modes", some([3, 16, 20, 32, 33, 48, 64, 100], quick=[3, 33]))
def test_a_step_adds_up_any_number_of_modes(modes, rng):
    u, state = rng.standard_normal((2, 5)), rng.standard_normal((2, 5, 2 * modes))
    dA, dB = rng.standard_normal((2, 5, 2 * modes))
    C = rng.standard_normal((3, 5, 2 * modes))
    found = step(*(ops.convert_to_tensor(x, dtype="float32") for x in (u, state, dA, dB, C)))
    split = lambda x: x[..., :modes] + 1j * x[..., modes:]
    after = split(dA) * split(state) + split(dB) * u[..., None]
    y = 2 * np.einsum("bhn,chn->bch", after, split(C)).real.reshape(2, 15)
    assert relative_error(found[0], y) < 1e-5
    assert relative_error(found[1], np.concatenate([after.real, after.imag], axis=-1)) < 1e-6


def test_powers_below_1e_26_are_zero():
    log_dA = ops.convert_to_tensor([[-1.0]]), ops.convert_to_tensor([[0.0]])
    found = to_numpy(powers(log_dA, np.array([0, 40, 59, 61]))[0])[0, 0]
    np.testing.assert_allclose(found[:3], np.exp([0.0, -40.0, -59.0]), rtol=1e-5)
    assert found[3] == 0


def test_toeplitz(rng):
    diagonals = rng.standard_normal((2, 9)).astype("float32")
    expected = np.stack([[[d[4 + j - i] for j in range(5)] for i in range(5)] for d in diagonals])
    assert relative_error(toeplitz(ops.convert_to_tensor(diagonals)), expected) == 0


def as_pair(z):
    return ops.cast(z.real, "float32"), ops.cast(z.imag, "float32")


@pytest.mark.parametrize("length", some([1, 2, 127, 128, 129, 1000], quick=[1, 129]))
def test_kernel_from_a_two_level_table(length, rng):
    A = 0.02 * (-0.1 - rng.random((2, 3)) + 3j * rng.standard_normal((2, 3)))
    B, C = rng.standard_normal((2, 1, 2, 3)) + 1j * rng.standard_normal((2, 1, 2, 3))
    t = np.arange(length)
    expected = 2 * np.einsum("chn,hnt->cht", B * C, np.exp(A[..., None] * t)).real
    bank = DiagonalBank(as_pair(A), as_pair(B[0]), as_pair(C))
    assert relative_error(kernel(bank, length), expected) < 1e-5
    # The same system, dense: a rotation and decay of each mode.
    E, dA = np.zeros((2, 6, 6)), np.exp(A)
    for mode in range(3):
        re, im = dA[:, mode].real, dA[:, mode].imag
        E[:, mode, mode] = E[:, mode + 3, mode + 3] = re - 1
        E[:, mode + 3, mode], E[:, mode, mode + 3] = im, -im
    dense = DenseBank(
        ops.cast(E, "float32"),
        ops.cast(np.concatenate([B[0].real, B[0].imag], axis=-1), "float32"),
        ops.cast(2 * np.concatenate([C.real, -C.imag], axis=-1), "float32"),
    )
    assert relative_error(kernel(dense, length), expected) < 2e-5


@pytest.mark.parametrize("length", some([1, 5, 64, 100], quick=[64]))
def test_growing_modes(length, rng):
    decay = -0.1 - rng.random((3, 2)) + 1j * rng.standard_normal((3, 2))
    C = rng.standard_normal((2, 3, 2)) + 1j * rng.standard_normal((2, 3, 2))
    u = rng.standard_normal((2, length, 3)).astype("float32")
    K = 2 * np.einsum("chn,hnt->cht", C, np.exp(decay[..., None] * np.arange(length)[::-1])).real
    expected = np.zeros((2, length, 2, 3))
    for t in range(length):
        expected[:, t] = np.einsum("bsh,chs->bch", u[:, : t + 1], K[..., t::-1][..., : t + 1])
    for size in (None, 16, 7):
        run = with_cheap_loops(
            lambda u, size=size: growing_chunked(u, as_pair(decay), as_pair(C), size)
        )
        y = run(ops.convert_to_tensor(u))
        assert relative_error(y, expected.reshape(2, length, 6)) < 1e-5


@pytest.mark.parametrize("rank", some([1, 2, 3], quick=[2]))
@pytest.mark.parametrize("dt", some([1e-4, 1e-1, 1.0], quick=[1e-1]))
def test_bilinear_with_low_rank(rank, dt, rng):
    A = -rng.random((2, 3)) - 0.1 + 20j * rng.standard_normal((2, 3))
    P = rng.standard_normal((rank, 2, 3)) + 1j * rng.standard_normal((rank, 2, 3))
    B = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    step = ops.cast(np.full((2, 1), dt), "float32")
    E, dB = map(to_numpy, dplr_bilinear(as_pair(A), as_pair(P), as_pair(B), step))
    for h in range(2):
        both = lambda z: np.concatenate([z, z.conj()])
        M = np.diag(both(A[h])) - sum(np.outer(both(p), both(p).conj()) for p in P[:, h])
        inverse = np.linalg.inv(np.eye(6) - dt / 2 * M)
        # From (x, conj x) to (Re x, Im x).
        change = np.block([[np.eye(3), np.eye(3)], [-1j * np.eye(3), 1j * np.eye(3)]]) / 2
        exact = change @ (inverse @ (dt * M)) @ np.linalg.inv(change)
        assert np.abs(E[h] - exact).max() < 2e-6 * np.abs(exact).max()
        exact = change @ (inverse @ (dt * both(B[h])))
        assert np.abs(dB[h] - exact).max() < 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("dt", some([1e-4, 1e-2, 1.0, 30.0], quick=[1e-4, 30.0]))
def test_discretization(rule, dt):
    real = -np.array([[1e-4, 0.5, 2.0, 66.0]])
    A = real + 1j * np.array([[0.0, 30.0, -400.0, 0.0]])
    B = np.array([[1.0, 1j, -1.0, 2.0 - 1j]])
    z = dt * A
    if rule == "zoh":
        dA, dB = np.exp(z), B * np.expm1(z) / A
    else:
        dA, dB = (1 + z / 2) / (1 - z / 2), dt * B / (1 - z / 2)
    log_dA, found = discretize.RULES[rule](as_pair(A), as_pair(B), ops.cast([[dt]], "float32"))
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


@pytest.mark.parametrize(("length", "steps"), some([(1, 1), (5, 3), (8, 8), (33, 40)], [(5, 3)]))
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


@pytest.mark.parametrize("bidirectional", some([False, True], [True]))
def test_gradients_of_fft_conv(bidirectional, rng):
    """Those of the sum over all lags, for two channels."""
    u = rng.standard_normal((2, 7, 3)).astype("float32")
    k = rng.standard_normal((4 if bidirectional else 2, 3, 5)).astype("float32")
    w = ops.convert_to_tensor(rng.standard_normal((2, 7, 6)).astype("float32"))
    by = lambda conv: gradients(
        lambda u, k: ops.sum(w * conv(u, k, bidirectional)), keras.layers.Identity(), u, k
    )
    value, _, found = by(fft_conv)
    expected_value, _, expected = by(direct_conv)
    assert relative_error(value, expected_value) < 1e-5
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 1e-5


def test_exact_einsum_and_static_value(rng):
    a, b = rng.standard_normal((2, 4, 4)).astype("float32")
    product = backend.exact_einsum("ij,jk->ik", ops.convert_to_tensor(a), ops.convert_to_tensor(b))
    assert relative_error(product, a @ b) < 1e-6
    assert backend.static_value(ops.convert_to_tensor(a)).shape == (4, 4)
    seen = []

    def function(x):
        seen.append(backend.static_value(x))
        return x * 2

    if BACKEND != "torch":
        compiled(function)(ops.convert_to_tensor(a))
        assert seen[0] is None
