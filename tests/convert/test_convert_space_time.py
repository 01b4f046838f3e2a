"""Layers of the published SpaceTime from their state dicts, and back."""

import numpy as np
import pytest

from keras_ssm.convert import export_space_time, load_space_time
from keras_ssm.layers import Differencing, SpaceTime
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def tensors():
    data, _ = golden("relatives/spacetime/network_lag48_h24")
    return {name[3:]: data[name] for name in data if name.startswith("sd/")}


def test_tensors_come_back(tensors, tmp_path):
    np.savez(tmp_path / "network.npz", **tensors)
    for stem in ("encoder.blocks.0.pre.", "encoder.blocks.0.ssm.", "decoder.blocks.ssm."):
        layer = load_space_time(tmp_path / "network.npz", stem)
        found = export_space_time(layer, stem)
        assert set(found) == {name for name in tensors if name.startswith(stem)}
        for name, value in found.items():
            unused = name.endswith("skip") and layer.closed_loop
            np.testing.assert_array_equal(value, 0 * tensors[name] if unused else tensors[name])
    assert layer.closed_loop and layer.normalization == "published"


def test_what_does_not_fit_is_refused(tensors):
    with pytest.raises(ValueError, match=r"must hold a, b and c.*Received"):
        load_space_time(tensors, "encoder.blocks.7.ssm.")
    stem = "encoder.blocks.0.ssm."
    with pytest.raises(ValueError, match=r"must hold a, b and c.*Received"):
        load_space_time({**tensors, stem + "b": tensors[stem + "b"][:, :3]}, stem)
    for layer in (
        SpaceTime(3, channels=2),
        SpaceTime(3, skip=False, closed_loop=True),
        Differencing(expand=True),
        Differencing(windows=0),
    ):
        layer.build((None, None, 8))
        with pytest.raises(ValueError, match=r"`layer` must.*Received"):
            export_space_time(layer)
