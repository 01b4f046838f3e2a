"""Layers of the published SpaceTime from their state dicts, and back."""

import json

import numpy as np
import pytest

from keras_ssm.convert import export_layer, load_layer
from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file
from keras_ssm.layers import Differencing, SpaceTime
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def tensors():
    data, _ = golden("relatives/spacetime/network_lag48_h24")
    return {name[3:]: data[name] for name in data if name.startswith("sd/")}


@pytest.mark.parametrize(
    ("stem", "kind"),
    [
        ("encoder.blocks.0.pre.", "residual"),
        ("encoder.blocks.0.ssm.", "companion"),
        ("decoder.blocks.ssm.", "closed_loop_companion"),
    ],
)
def test_tensors_come_back(tensors, tmp_path, stem, kind):
    np.savez(tmp_path / "network.npz", **tensors)
    layer, path = load_layer(tmp_path / "network.npz", stem), tmp_path / "layer.safetensors"
    assert export_layer(layer, path, prefix=stem)["model_type"] == kind
    written = read_checkpoint_file(path).tensors
    assert set(written) == {name for name in tensors if name.startswith(stem)}
    for name, value in written.items():
        unused = name.endswith("skip") and kind == "closed_loop_companion"
        np.testing.assert_array_equal(value, 0 * tensors[name] if unused else tensors[name])
    if kind == "closed_loop_companion":
        assert layer.closed_loop and layer.normalization == "published"


def test_what_tensors_do_not_say_is_in_the_file_beside_them(tmp_path):
    layer, path = SpaceTime(3, norm_order=2, skip=False, seed=0), tmp_path / "layer.safetensors"
    layer.build((None, None, 4))
    config = export_layer(layer, path)
    assert json.loads((tmp_path / "layer.safetensors.json").read_text()) == config
    again = load_layer(path)
    assert (again.norm_order, again.skips) == (2, False)
    assert load_layer(path, norm_order=1).norm_order == 1
    with pytest.raises(ValueError, match=r"`state_dim` must be 3.*Received: state_dim=5"):
        load_layer(path, state_dim=5)


def test_what_does_not_fit_is_refused(tensors, tmp_path):
    with pytest.raises(ValueError, match=r"must hold tensors.*'encoder.blocks.7.ssm.'.*Received"):
        load_layer(tensors, "encoder.blocks.7.ssm.")
    stem = "encoder.blocks.0.ssm."
    with pytest.raises(ValueError, match=r"must hold a, b and c.*Received"):
        load_layer({**tensors, stem + "b": tensors[stem + "b"][:, :3]}, stem)
    with pytest.raises(ValueError, match=r"must be finite.*Received"):
        load_layer({**tensors, stem + "b": np.nan * tensors[stem + "b"]}, stem)
    with pytest.raises(ValueError, match=r"must be one of the layer. Received: more"):
        load_layer({**tensors, stem + "more": tensors[stem + "b"]}, stem)
    for layer in (
        SpaceTime(3, channels=2),
        SpaceTime(3, skip=False, closed_loop=True),
        Differencing(expand=True),
        Differencing(windows=0),
    ):
        layer.build((None, None, 8))
        with pytest.raises(ValueError, match=r"`layer` must.*Received"):
            export_layer(layer, tmp_path / "x")
    assert not list(tmp_path.iterdir())
