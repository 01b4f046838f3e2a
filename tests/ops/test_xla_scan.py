"""The loops of XLA for scans and chunks: equal to the portable forms, gradients included."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.ops import backend, diagonal_states, pair
from keras_ssm.ops.backend import xla
from tests.backend_tools import BACKEND, BACKEND_MODULE, compiled, gradients, relative_error

BATCH, SIZE = 2, 6
SHORTEST = 128 if BACKEND == "jax" else 1024


@pytest.fixture(autouse=True)
def on_any_device(monkeypatch):
    """The loops of JAX are for a CPU."""
    monkeypatch.setattr(BACKEND_MODULE, "runs_in_blocks", lambda: True)


class Nothing(keras.Layer):
    """No weights."""


def arrays_of(steps):
    rng = np.random.default_rng(0)
    shapes = [(1, 1, SIZE), (BATCH, steps, SIZE), (BATCH, SIZE)]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    arrays[0] *= 0.4
    return arrays, rng.standard_normal(shapes[1]).astype("float32")


def loops(reverse):
    return lambda *tensors: backend.fused_scan(*tensors, reverse, None)


def portable(reverse):
    return lambda *tensors: diagonal_states.diagonal_states(*tensors, reverse)


@pytest.mark.parametrize(("steps", "reverse"), [(SHORTEST, True), (SHORTEST + 75, False)])
def test_scan(steps, reverse):
    """In whole blocks, and with one that is filled up."""
    arrays, w = arrays_of(steps)

    def results(function, compile):
        def loss(*tensors):
            y = function(*tensors)
            return ops.sum(y * w), y

        y, _, slopes = gradients(loss, Nothing(), *arrays, compile=compile)
        return [y, *slopes]

    # XLA compiles the portable form slowly.
    found, expected = results(loops(reverse), True), results(portable(reverse), "loops")
    assert max(map(relative_error, found, expected)) < 1e-5


@pytest.mark.only("jax")  # TensorFlow has no gradients of these gradients
def test_gradients_of_gradients():
    import jax

    reverse = True

    arrays, w = arrays_of(SHORTEST + 75)

    def second(function):
        loss = lambda *arrays: (function(*arrays) * w).sum()
        first = jax.grad(loss, argnums=(0, 1, 2))
        squares = lambda *arrays: sum((g * g).sum() for g in first(*arrays))
        return jax.jit(jax.grad(squares, argnums=(0, 1, 2)))(*arrays)

    found, expected = second(loops(reverse)), second(portable(reverse))
    assert max(map(relative_error, found, expected)) < 1e-5


def test_where_it_applies():
    dA, inputs, initial = np.ones((1, 1, 2)), np.ones((1, SHORTEST, 2)), np.zeros((1, 2))
    dA, inputs, initial = (ops.convert_to_tensor(x, dtype="float32") for x in (dA, inputs, initial))
    apply = loops(False)
    assert apply(dA, inputs, initial).shape == inputs.shape
    assert apply(dA, inputs[:, :-1], initial) is None
    assert apply(ops.ones((1, SHORTEST, 2)), inputs, initial) is None


@pytest.mark.parametrize(("chunks", "reverse"), [(1, False), (5, True)])
def test_states_one_by_one(chunks, reverse, rng):
    shapes = [(3, 1, 1, SIZE), (3, BATCH, chunks, SIZE), (3, BATCH, SIZE)]
    tensors = [ops.convert_to_tensor(rng.standard_normal(s), dtype="float32") for s in shapes]
    found = compiled(lambda *tensors: xla.scan_one_by_one(*tensors, reverse))(*tensors)
    a, inputs, state = tensors
    states = []
    for m in reversed(range(chunks)) if reverse else range(chunks):
        state = pair.product(a[:, :, 0], state) + inputs[:, :, m]
        states.append(state)
    assert relative_error(found, ops.stack(states[::-1] if reverse else states, axis=2)) < 1e-5
