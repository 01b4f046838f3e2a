"""JAX's own loops for scans: equal to the portable form, gradients of gradients included."""

import importlib

import numpy as np
import pytest

from tests.backend_tools import BACKEND, relative_error

if BACKEND != "jax":
    pytest.skip("JAX only", allow_module_level=True)

import jax

from keras_ssm.ops.backend import fused_scan, jax_scan

scan = importlib.import_module("keras_ssm.ops.scan")

BATCH, SIZE = 2, 6


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [128, 203])
def test_scan(steps, reverse):
    """In whole blocks, and with one that is filled up."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1, SIZE), (BATCH, steps, SIZE), (BATCH, SIZE)]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    arrays[0] *= 0.4
    w = rng.standard_normal(shapes[1]).astype("float32")
    portable = lambda *arrays: scan.forward(*arrays, reverse)  # noqa: E731
    ours = lambda *arrays: jax_scan.scan(*arrays, reverse)  # noqa: E731

    def results(function):
        loss = lambda *arrays: (function(*arrays) * w).sum()  # noqa: E731
        first = jax.grad(loss, argnums=(0, 1, 2))
        squares = lambda *arrays: sum((g * g).sum() for g in first(*arrays))  # noqa: E731
        second = jax.grad(squares, argnums=(0, 1, 2))
        return jax.jit(lambda *arrays: (function(*arrays), *first(*arrays), *second(*arrays)))

    found, expected = results(ours)(*arrays), results(portable)(*arrays)
    assert max(map(relative_error, found, expected)) < 1e-5


def test_where_it_applies():
    dA, inputs, initial = np.ones((1, 1, 2)), np.ones((1, 130, 2)), np.zeros((1, 2))
    assert fused_scan(dA, inputs, initial, False, None).shape == inputs.shape
    assert fused_scan(dA, inputs[:, :100], initial, False, None) is None
    assert fused_scan(np.ones((1, 130, 2)), inputs, initial, False, None) is None
