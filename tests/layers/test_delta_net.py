"""DeltaNet against its formulas, one sample at a time, and what is its alone."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DeltaNet
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy, with_cheap_loops

ONCE = pytest.mark.once("torch")
KINDS = {
    "plain": {"heads": 2, "head_dim": 4},
    "no convolution": {"heads": 2, "head_dim": 4, "conv_width": None},
    "all": {
        "heads": 3,
        "head_dim": 4,
        "expand_v": 1.25,
        "householders": 2,
        "gated": True,
        "neg_eigenvalues": True,
        "output_gate": True,
        "conv_width": 3,
        "conv_bias": True,
        "use_bias": True,
    },
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_formula(layer, x):
    """Outputs `(length, features)` and the last matrices, in NumPy."""
    H, K, V, R = layer.heads, layer.head_dim, layer.value_dim, layer.householders
    weights = {v.path.split("/", 1)[-1]: to_numpy(v) for v in layer.weights}
    z = x @ weights["in_proj/kernel"] + weights.get("in_proj/bias", 0.0)
    gate = H * V if layer.output_gate else 0
    widths = [gate, H * K, R * H * K, R * H * V, R * H]
    gate, q, k, v, beta, decays = np.split(z, np.cumsum(widths), axis=-1)
    u = np.concatenate([q, k, v], axis=-1)
    if layer.conv_width is not None:
        u = np.pad(u, [(layer.conv_width - 1, 0), (0, 0)])
        taps = enumerate(weights["conv_kernel"])
        u = sum(u[j : j + len(x)] * tap for j, tap in taps) + weights.get("conv_bias", 0.0)
    u = u * sigmoid(u)
    q, k, v = np.split(u, np.cumsum(widths[1:3]), axis=-1)
    q, k = q.reshape(-1, H, K), k.reshape(-1, R, H, K)
    v, beta = v.reshape(-1, R, H, V), sigmoid(beta).reshape(-1, R, H)
    q, k = (z / np.sqrt(np.sum(z * z, axis=-1, keepdims=True) + 1e-6) for z in (q, k))
    beta = beta * (2 if layer.neg_eigenvalues else 1)
    S, outputs = np.zeros((H, K, V)), []
    for t in range(len(x)):
        if layer.gated:
            dt = np.log1p(np.exp(decays[t] + weights["dt_bias"]))
            S = np.exp(-np.exp(weights["A_log"]) * dt)[:, None, None] * S
        for j in range(R):
            for h in range(H):
                reflected = np.eye(K) - beta[t, j, h] * np.outer(k[t, j, h], k[t, j, h])
                S[h] = reflected @ S[h] + beta[t, j, h] * np.outer(k[t, j, h], v[t, j, h])
        y = np.einsum("hkv,hk->hv", S, q[t]) / np.sqrt(K)
        y = y / np.sqrt(np.mean(y * y, axis=-1, keepdims=True) + 1e-5) * weights["norm_scale"]
        y = y.ravel()
        outputs.append(y * gate[t] * sigmoid(gate[t]) if layer.output_gate else y)
    y = np.array(outputs) @ weights["out_proj/kernel"] + weights.get("out_proj/bias", 0.0)
    return y, S


@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=ONCE) for k in ("plain", "no convolution")), "all"]
)
def test_outputs_and_state_are_those_of_the_formulas(kind, rng):
    exact = BACKEND != "jax"
    policy, tolerance = ("float64", 1e-11) if exact else ("float32", 1e-5)
    layer = DeltaNet(**KINDS[kind], seed=0, dtype=policy)
    layer.build((None, None, 5))
    for weight in layer.weights:
        weight.assign(to_numpy(weight) + 0.2 * rng.standard_normal(weight.shape))
    x = rng.standard_normal((2, 70, 5))
    run = with_cheap_loops(lambda x: layer(x, return_state=True))
    y, state = run(ops.cast(x, policy))
    for row in range(2):
        expected, last = by_formula(layer, x[row])
        assert relative_error(to_numpy(y)[row], expected) < tolerance
        assert relative_error(to_numpy(state["ssm"])[row], last) < tolerance


@pytest.mark.parametrize("kind", ["plain", pytest.param("all", marks=pytest.mark.once("torch"))])
def test_large_inputs_do_not_vanish(kind, rng):
    arguments = {**KINDS[kind], "gated": False, "output_gate": False, "use_bias": False}
    layer = DeltaNet(**{**arguments, "conv_bias": False}, seed=0)
    layer.build((None, None, 4))
    x = rng.standard_normal((1, 6, 4)).astype("float32")
    w = ops.convert_to_tensor(x)

    def loss(x):
        y = layer(x)
        return ops.sum(y * w), y

    def found(scale):
        y, _, (d_x,) = gradients(loss, layer, x * scale, compile="loops")
        return y, to_numpy(d_x) * scale

    # The outputs do not depend on the scale once epsilons do not count and strengths are 0 or 1.
    large, larger = found(np.float32(1e9)), found(np.float32(1e21))
    assert np.abs(large[0]).max() > 0.1
    for ours, theirs in zip(larger, large, strict=True):
        assert relative_error(ours, theirs) < 1e-4


@pytest.mark.once("torch")
def test_initial_values_are_those_of_the_papers():
    layer = DeltaNet(heads=512, head_dim=1, gated=True, seed=0)
    layer.build((None, None, 4))
    A, dt = np.exp(to_numpy(layer.A_log)), np.log1p(np.exp(to_numpy(layer.dt_bias)))
    assert 0 < A.min() < 0.2 and 15.8 < A.max() <= 16 and abs(A.mean() - 8) < 0.7
    assert dt.min() >= 1e-3 * (1 - 1e-5) and dt.max() <= 0.1 * (1 + 1e-5)
    assert abs(np.log10(dt).mean() + 2) < 0.1
    assert {v.optimizer_group for v in (layer.A_log, layer.dt_bias, layer.norm_scale)} == {
        "undecayed"
    }


@pytest.mark.once("torch")
def test_a_file_brings_the_layer_back(tmp_path, rng):
    model = keras.Sequential([keras.Input((None, 5)), DeltaNet(**KINDS["all"], chunk_size=4)])
    x = rng.standard_normal((2, 9, 5)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"heads": 0}, "`heads` must be a positive integer"),
        ({"householders": 0}, "`householders` must be a positive integer"),
        ({"gated": 1}, "`gated` must be True or False"),
        ({"expand_v": 0.3, "head_dim": 4}, "`expand_v` times `head_dim`"),
        ({"expand_v": 0, "head_dim": 4}, "`expand_v` times `head_dim`"),
        ({"conv_width": 1}, "`conv_width` must be an integer of at least 2, or None"),
        ({"conv_width": None, "conv_bias": True}, "`conv_bias` needs a convolution"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "`dt_min` and `dt_max` must satisfy"),
        ({"dt_min": -1.0}, "`dt_min` and `dt_max` must satisfy"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=f"{words}.*Received"):
        DeltaNet(**arguments)


@pytest.mark.once("torch")
def test_sizes_of_numpy_are_sizes():
    layer = DeltaNet(np.int64(2), np.int64(4), conv_width=np.int64(3), seed=np.int64(0))
    assert type(layer.get_config()["conv_width"]) is int


@pytest.mark.once("torch")
def test_biases_and_scales_do_not_decay():
    layer = DeltaNet(2, 4, gated=True, conv_bias=True, use_bias=True)
    layer.build((None, None, 4))
    groups = {w.name: getattr(w, "optimizer_group", None) for w in layer.weights}
    for name in ("A_log", "dt_bias", "conv_bias", "norm_scale"):
        assert groups[name] == "undecayed", name
    assert groups["conv_kernel"] is None
