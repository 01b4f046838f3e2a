"""Mamba and Mamba-2 against the recordings, and the promises that are theirs alone."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Mamba, Mamba2
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.mamba_recordings import MODELS, layer_of, recorded


@pytest.mark.once("torch")  # whole models are compared on every backend
@pytest.mark.parametrize("name", MODELS)
def test_recorded_layers(name):
    """float64 where Keras has it on its own, else float32."""
    exact = BACKEND != "jax"
    policy, tolerance = ("float64", 1e-12) if exact else ("float32", 2e-5)
    keras.config.set_dtype_policy(policy)
    record = recorded(name)
    for i in range(record.layers):
        layer = layer_of(record, i)
        x = ops.cast(record[f"mixer_in_{i}"], policy)
        y, state = layer(x, return_state=True)
        assert relative_error(to_numpy(y), record[f"mixer_out_{i}"]) < tolerance
        assert relative_error(to_numpy(state["ssm"]), record[f"prefill/ssm_{i}"]) < tolerance
        conv = np.moveaxis(record[f"prefill/conv_{i}"], 1, 2)[:, 1:]
        assert relative_error(to_numpy(state["conv"]), conv) < tolerance


@pytest.mark.once("torch")
def test_a_projection_of_the_steps_that_is_more_than_its_kernel_is_called(rng):
    """Quantised, or while somebody listens to what goes into it."""
    layer = Mamba(state_dim=3, dt_rank=2)
    x = rng.standard_normal((2, 9, 8)).astype("float32")
    expected, call, seen = to_numpy(layer(x)), layer.dt_proj.call, []
    layer.dt_proj.call = lambda *inputs, **options: seen.append(1) or call(*inputs, **options)
    assert relative_error(to_numpy(layer(x)), expected) < 1e-6
    assert seen
    del layer.dt_proj.call
    layer.dt_proj.quantize("int8")
    assert 0 < relative_error(to_numpy(layer(x)), expected) < 0.1


@pytest.mark.once("torch")
def test_initial_values_are_those_of_the_papers():
    layer = Mamba(state_dim=4, residual_layers=4, seed=0)
    layer.build((None, None, 256))
    values = {v.path.split("/", 1)[-1]: to_numpy(v) for v in layer.weights}
    np.testing.assert_allclose(np.exp(values["A_log"]), np.tile([1, 2, 3, 4], (512, 1)), rtol=1e-6)
    np.testing.assert_array_equal(values["D"], 1)
    dt = np.log1p(np.exp(values["dt_bias"]))
    assert dt.min() * (1 + 1e-5) >= 1e-3 and dt.max() <= 0.1 * (1 + 1e-5)
    quartiles = np.quantile(np.log10(dt), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [-2.5, -2, -1.5], atol=0.15)
    bounds = {"in_proj": 256**-0.5, "x_proj": 512**-0.5, "dt_proj": 16**-0.5}
    bounds |= {"out_proj": 512**-0.5 / 2, "conv": 0.5}
    for name, bound in bounds.items():
        kernel = values.get(f"{name}/kernel", values.get(f"{name}_kernel"))
        assert 0.95 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6), name
        assert abs(kernel.std() - bound / 3**0.5) < 0.05 * bound, name
    layer = Mamba2(head_dim=1, seed=0)
    layer.build((None, None, 256))
    A = np.exp(to_numpy(layer.A_log))
    assert A.min() >= 1 and A.max() <= 16 and abs(A.mean() - 8.5) < 0.7


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mamba(conv_width=1), "`conv_width` must be an integer of at least 2"),
        (lambda: Mamba2(dt_min=1.0, dt_max=0.1), "`dt_min` and `dt_max` must satisfy"),
        (lambda: Mamba(dt_rank=0), "`dt_rank` must be a positive integer"),
        (lambda: Mamba(expand=0.01)(np.zeros((1, 2, 8))), "`expand` must leave at least one"),
        (lambda: Mamba2(A_range=(0, 1)), "`A_range` must begin above 0"),
        (lambda: Mamba2(dt_limit=(1, 0)), "`dt_limit` must be a pair of numbers"),
        (lambda: Mamba2(head_dim=3)(np.zeros((1, 2, 8))), "`head_dim` must divide"),
        (lambda: Mamba2(head_dim=8, num_groups=3)(np.zeros((1, 2, 8))), "`num_groups` the heads"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
