"""Norms of numbers whose squares are none of float32."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import ScalarNormalization
from keras_ssm.layers.exact_layers import LayerNormalization, RMSNormalization
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy

NORMS = {
    "rms": lambda: RMSNormalization(epsilon=1e-12),
    "layer": lambda: LayerNormalization(epsilon=1e-12),
    "scalar": ScalarNormalization,
}


# What is left of a row of equal numbers.
OF_EQUAL = {"rms": [0, 1], "layer": [0, 0], "scalar": [0, 0]}


@pytest.mark.parametrize("kind", NORMS)
def test_large_inputs_have_the_norm_and_gradient_of_small_ones(kind, rng):
    norm = NORMS[kind]()
    factors = np.array([1, 1e8, 1e16, 1e20, 1e30], "float32")
    x, w = rng.standard_normal((2, 3, 6)).astype("float32")
    rows = [factor * x for factor in factors] + [np.full_like(x, equal) for equal in (0, 3e20)]
    norm.build((None, None, 6))

    def loss(rows):
        y = norm(rows)
        return ops.sum(y * ops.convert_to_tensor(w)), y

    y, _, (slopes,) = gradients(loss, norm, np.stack(rows), compile=BACKEND == "jax")
    for i, factor in enumerate(factors):
        assert relative_error(y[i], y[0]) < 1e-5, factor
        assert relative_error(slopes[i] * factor, slopes[0]) < 1e-4, factor
    np.testing.assert_allclose(y[5:, 0, 0], OF_EQUAL[kind], atol=1e-6)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("size", [3e9, 2e12, 1e20])
def test_large_rows_that_hardly_differ(size, rng):
    """Their mean takes most of their digits; what is added to squares must not take the rest."""
    norm = LayerNormalization(epsilon=1e-5)
    norm.build((None, 64))
    x = (size * (1 + 1e-5 * rng.standard_normal((3, 64)))).astype("float32")
    exact = x.astype("float64")
    exact = exact - exact.mean(-1, keepdims=True)
    exact = exact / np.sqrt(np.square(exact).mean(-1, keepdims=True) + 1e-5)
    assert relative_error(norm(x), exact) < 0.02


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", NORMS)
def test_no_rows(kind):
    norm = NORMS[kind]()
    norm.build((None, 2))
    assert to_numpy(norm(np.zeros((0, 2), "float32"))).shape == (0, 2)
