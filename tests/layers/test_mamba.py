"""Mamba and Mamba-2 against the recordings, and the promises that are theirs alone."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Mamba, Mamba2
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.mamba_recordings import MODELS, layer_of, recorded

MIXERS = {
    "mamba": lambda: Mamba(state_dim=3, dt_rank=2, use_bias=True),
    "falcon": lambda: Mamba(state_dim=3, dt_rank=2, norm_bcdt=True),
    "mamba2": lambda: Mamba2(state_dim=3, head_dim=4, num_groups=2, use_bias=True),
    "mamba2 else": lambda: Mamba2(
        state_dim=3, head_dim=4, norm_before_gate=True, D_per_feature=True, dt_limit=(0.01, 0.3)
    ),
    "mamba2 plain": lambda: Mamba2(state_dim=3, head_dim=4, gated_norm=False),
}


ONCE = pytest.mark.once("torch")  # the same operations in another order, or other rows of them


@pytest.fixture(
    params=[pytest.param(n, marks=[] if n in ("falcon", "mamba2") else ONCE) for n in MIXERS]
)
def mixer(request, rng):
    layer = MIXERS[request.param]()
    layer.build((None, None, 8))
    for weight in layer.trainable_variables:  # nothing at its default
        noise = rng.standard_normal(weight.shape).astype("float32")
        weight.assign(weight + 0.3 * ops.convert_to_tensor(noise))
    return layer


def state_error(found, expected):
    return max(relative_error(to_numpy(found[k]), to_numpy(expected[k])) for k in ("conv", "ssm"))


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


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=ONCE) for k in ("left", "right")), "holes"]
)
def test_masked_rows_are_trimmed_rows(mixer, kind, rng):
    x = rng.standard_normal((2, 21, 8)).astype("float32")
    mask = np.ones((2, 21), bool)
    mask[1, {"left": slice(0, 5), "right": slice(15, None), "holes": slice(7, 12)}[kind]] = False
    start = mixer(x[:, :4], return_state=True)[1]
    covered = np.where(mask[..., None], x, np.nan)
    y, state = mixer(covered, mask=mask, initial_state=start, return_state=True)
    for row in range(2):
        first = {key: part[row : row + 1] for key, part in start.items()}
        valid = x[row : row + 1, mask[row]]
        alone, after = mixer(valid, initial_state=first, return_state=True)
        assert relative_error(to_numpy(y)[row][mask[row]], to_numpy(alone)[0]) < 1e-5
        assert state_error({k: v[row : row + 1] for k, v in state.items()}, after) < 1e-5


@pytest.mark.once("torch", "tensorflow")
def test_what_a_mask_covers_has_no_gradient(mixer, rng):
    x = rng.standard_normal((1, 9, 8)).astype("float32")
    mask = np.arange(9)[None] < 6
    x[~mask] = np.nan
    valid = ops.convert_to_tensor(mask[..., None])
    loss = lambda x: ops.sum(ops.where(valid, mixer(x, mask=mask), 0.0) ** 2)  # noqa: E731
    _, weights, (d_x,) = gradients(loss, mixer, x)
    _, trimmed, (d_valid,) = gradients(lambda x: ops.sum(mixer(x) ** 2), mixer, x[:, :6])
    assert not d_x[~mask].any()
    assert relative_error(d_x[mask], d_valid[0]) < 1e-4
    for name, value in weights.items():
        assert relative_error(value, trimmed[name]) < 1e-4, name


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("cut", [pytest.param(1, marks=ONCE), 2, pytest.param(64, marks=ONCE)])
def test_any_cut_and_steps_give_the_one_pass_result(mixer, cut, rng):
    x = rng.standard_normal((2, 67, 8)).astype("float32")
    y, state = mixer(x, return_state=True)
    first, between = mixer(x[:, :cut], return_state=True)
    rest, last = mixer(x[:, cut:], initial_state=between, return_state=True)
    assert relative_error(np.concatenate([to_numpy(first), to_numpy(rest)], 1), to_numpy(y)) < 1e-5
    assert state_error(last, state) < 1e-5
    stepped = mixer.get_initial_state(2)
    for t in range(4):
        y_t, stepped = mixer.step(x[:, t], stepped)
        assert relative_error(to_numpy(y_t), to_numpy(y)[:, t]) < 1e-5


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


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_the_recurrence_stays_float32_under_half_precision(kind, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = MIXERS[kind]()
    y, state = layer(rng.standard_normal((2, 9, 8)), return_state=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(v.dtype) for v in state.values()} == {"float32"}
    assert {v.dtype for v in layer.weights} == {"float32"}


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mamba(conv_width=1), "`conv_width` must be an integer of at least 2"),
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
