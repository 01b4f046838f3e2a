"""Layers of flash-linear-attention, there and back."""

import json

import numpy as np
import pytest

from keras_ssm.convert import export_layer, load_layer
from keras_ssm.layers import S4D, DeltaNet
from tests.backend_tools import to_numpy

pytestmark = pytest.mark.once("torch")

SIZES = {"heads": 2, "head_dim": 3, "seed": 0}
LAYERS = {
    "delta_net": {**SIZES, "neg_eigenvalues": True, "norm_epsilon": 1e-4},
    "gated_deltanet": {**SIZES, "expand_v": 2.0, "gated": True, "output_gate": True},
    "gated_deltaproduct": {**SIZES, "householders": 2, "gated": True, "conv_bias": True},
    "gated_deltaproduct without": {**SIZES, "householders": 2, "conv_width": None},
}


def make(kind):
    layer = DeltaNet(**LAYERS[kind])
    layer.build((None, None, 6))
    return layer


def published(rng, n, heads, K, V, width):
    """Random tensors of the widest of the three layers, with its names and shapes."""
    rows = {"q": heads * K, "k": n * heads * K, "v": n * heads * V}
    shapes = {f"{name}_proj.weight": (count, width) for name, count in rows.items()}
    shapes |= {f"{name}_conv1d.weight": (count, 1, 4) for name, count in rows.items()}
    shapes |= {"b_proj.weight": (n * heads, width), "a_proj.weight": (heads, width)}
    shapes |= {"A_log": (heads,), "dt_bias": (heads,), "g_proj.weight": (heads * V, width)}
    shapes |= {"o_norm.weight": (V,), "o_proj.weight": (width, heads * V)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def by_tensors(x, w, n, heads, K, V):
    """Outputs of one row as the published layer has them, from its tensors."""

    def convolved(name):
        z = np.pad(x @ w[f"{name}_proj.weight"].T, [(3, 0), (0, 0)])
        z = sum(z[j : j + len(x)] * w[f"{name}_conv1d.weight"][:, 0, j] for j in range(4))
        return z / (1 + np.exp(-z))

    q, k, v = convolved("q"), convolved("k"), convolved("v")
    q, k, v = q.reshape(-1, heads, K), k.reshape(-1, n, heads, K), v.reshape(-1, n, heads, V)
    q, k = (z / np.sqrt((z * z).sum(-1, keepdims=True) + 1e-6) for z in (q, k))
    beta = 2 / (1 + np.exp(-(x @ w["b_proj.weight"].T).reshape(-1, n, heads)))
    g = -np.exp(w["A_log"]) * np.log1p(np.exp(x @ w["a_proj.weight"].T + w["dt_bias"]))
    S, outputs = np.zeros((heads, K, V)), []
    for t in range(len(x)):
        S = np.exp(g[t])[:, None, None] * S
        for j in range(n):
            error = v[t, j] - np.einsum("hk,hkv->hv", k[t, j], S)
            S = S + np.einsum("h,hk,hv->hkv", beta[t, j], k[t, j], error)
        y = np.einsum("hk,hkv->hv", q[t], S) * K**-0.5
        outputs.append(y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * w["o_norm.weight"])
    gate = x @ w["g_proj.weight"].T
    y = np.array(outputs).reshape(len(x), -1) * gate / (1 + np.exp(-gate))
    return y @ w["o_proj.weight"].T


def test_published_tensors_give_the_published_layer(rng, tmp_path):
    sizes = {"n": 2, "heads": 2, "K": 3, "V": 4}
    tensors = published(rng, **sizes, width=5)
    x = rng.standard_normal((1, 9, 5))
    named = {f"model.layers.1.attn.{name}": value for name, value in tensors.items()}
    np.savez(tmp_path / "model.npz", **named, **{"lm_head.weight": np.ones((2, 2))})
    given = {"neg_eigenvalues": True, "dtype": "float64"}
    layer = load_layer(tmp_path / "model.npz", "model.layers.1.attn.", **given)
    found, expected = to_numpy(layer(x))[0], by_tensors(x[0], tensors, **sizes)
    assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()
    assert (layer.householders, layer.gated, layer.output_gate) == (2, True, True)


@pytest.mark.parametrize("kind", LAYERS)
def test_out_and_in_again_is_exact(kind, tmp_path, rng):
    layer, path = make(kind), tmp_path / "layer.safetensors"
    config = export_layer(layer, path)
    assert config["model_type"] == kind.split()[0]
    assert json.loads((tmp_path / "layer.safetensors.json").read_text()) == config
    again = load_layer(path)
    for ours, theirs in zip(again.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ignored = {"seed": None, "name": None}
    assert again.get_config() | ignored == layer.get_config() | ignored
    with pytest.raises(ValueError, match=r"must be new.*Received: 'layer.safetensors'"):
        export_layer(layer, path)


def test_what_cannot_be_converted(rng, tmp_path):
    tensors = published(rng, 1, 2, 3, 3, 5)
    with pytest.raises(ValueError, match=r"`neg_eigenvalues` cannot be seen.*Received"):
        load_layer(tensors)
    for name, value in {"qk_norm": "sum", "use_beta": False, "num_v_heads": 4}.items():
        with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
            load_layer(tensors, config={name: value, "allow_neg_eigval": False})
    ours = {"neg_eigenvalues": False}
    with pytest.raises(ValueError, match=r"`heads` must be 2.*Received: heads=3"):
        load_layer(tensors, heads=3, **ours)
    with pytest.raises(ValueError, match=r"Every tensor must be.*Received: D"):
        load_layer({**tensors, "D": np.ones(2)}, **ours)
    with pytest.raises(ValueError, match=r"must hold a tensor 'o_proj.weight'"):
        load_layer({k: v for k, v in tensors.items() if k != "o_proj.weight"}, **ours)
    with pytest.raises(ValueError, match=r"must have the same heads.*o_norm 2"):
        load_layer({**tensors, "o_norm.weight": np.ones(2)}, **ours)
    with pytest.raises(ValueError, match=r"must be finite"):
        load_layer({**tensors, "A_log": np.full(2, np.nan)}, **ours)
    with pytest.raises(ValueError, match=r"`layer` must be a DeltaNet"):
        export_layer(S4D(), tmp_path / "x")
    biased = DeltaNet(2, head_dim=3, use_bias=True)
    biased.build((None, None, 5))
    with pytest.raises(ValueError, match=r"Received: use_bias=True"):
        export_layer(biased, tmp_path / "x")
    quantised = DeltaNet(heads=2, head_dim=4, seed=0)
    quantised.build((None, None, 8))
    quantised.out_proj.quantize("int8")
    with pytest.raises(ValueError, match=r"are floats: .* quantised to int8"):
        export_layer(quantised, tmp_path / "x")
