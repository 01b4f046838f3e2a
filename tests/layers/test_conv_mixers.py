"""What layers with a short convolution and a recurrence that the input drives promise alike."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DeltaNet, Mamba, Mamba2
from tests.backend_tools import gradients, relative_error, to_numpy

MIXERS = {
    "mamba": lambda: Mamba(state_dim=3, dt_rank=2, use_bias=True),
    "falcon": lambda: Mamba(state_dim=3, dt_rank=2, norm_bcdt=True),
    "mamba2": lambda: Mamba2(state_dim=3, head_dim=4, num_groups=2, use_bias=True),
    "mamba2 else": lambda: Mamba2(
        state_dim=3, head_dim=4, norm_before_gate=True, D_per_feature=True, dt_limit=(0.01, 0.3)
    ),
    "mamba2 plain": lambda: Mamba2(state_dim=3, head_dim=4, gated_norm=False),
    "delta": lambda: DeltaNet(heads=2, head_dim=4, neg_eigenvalues=True, use_bias=True),
    "delta alone": lambda: DeltaNet(heads=2, head_dim=4, gated=True, conv_width=None),
    "delta product": lambda: DeltaNet(
        heads=2,
        head_dim=2,
        expand_v=1.5,
        householders=3,
        gated=True,
        output_gate=True,
        conv_bias=True,
        chunk_size=12,
    ),
}


ONCE = pytest.mark.once("torch")  # the same operations in another order, or on other rows


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
    return max(relative_error(to_numpy(found[k]), to_numpy(expected[k])) for k in expected)


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
    loss = lambda x: ops.sum(ops.where(valid, mixer(x, mask=mask), 0.0) ** 2)
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


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("kind", ["mamba", "mamba2", pytest.param("delta product", marks=ONCE)])
def test_the_recurrence_stays_float32_under_half_precision(kind, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = MIXERS[kind]()
    x = rng.standard_normal((2, 9, 8))
    y, state = layer(x, return_state=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(v.dtype) for v in state.values()} == {"float32"}
    assert {v.dtype for v in layer.weights} == {"float32"}
    # Steps round where a sequence does, and nowhere else: a norm of small heads shows it.
    stepped = layer.get_initial_state(2)
    for t in range(9):
        y_t, stepped = layer.step(x[:, t], stepped)
        assert keras.backend.standardize_dtype(y_t.dtype) == "bfloat16"
        assert relative_error(to_numpy(y_t), to_numpy(y)[:, t]) < 1e-3
    assert state_error(stepped, state) < 1e-3
