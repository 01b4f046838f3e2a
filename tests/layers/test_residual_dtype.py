"""The residual stream in single precision while the rest computes in half."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, Mamba, SSMBlock
from keras_ssm.models import SSMBackbone
from tests.backend_tools import to_numpy

pytestmark = pytest.mark.once("torch")


def dtype_of(x):
    return keras.backend.standardize_dtype(x.dtype)


@pytest.mark.parametrize("norm", ["rms", "layer", "batch", "scalar"])
def test_the_stream_and_what_the_norm_reads_are_not_rounded(norm):
    # Values that bfloat16 cannot tell from 1: rounded, the norm would see a constant.
    x = ops.convert_to_tensor(1 + 1e-4 * np.arange(1, 9, dtype="float32").reshape(1, 2, 4))
    settings = {"activation": None, "gate": None, "norm": norm, "prenorm": True}
    settings |= {"dtype": "mixed_bfloat16", "norm_epsilon": 1e-10}
    wide = SSMBlock(S4D(state_dim=4), residual_dtype="float32", **settings)
    seen = []
    wide.build((None, None, 4))
    call = wide.mixer.call
    wide.mixer.call = lambda x, *args, **kwargs: seen.append(x) or call(x, *args, **kwargs)
    y = wide(x)
    assert dtype_of(y) == "float32" and dtype_of(seen[0]) == "bfloat16"
    if norm == "layer":
        np.testing.assert_allclose(to_numpy(seen[0])[0, 0], [-1.34, -0.45, 0.45, 1.34], atol=0.01)
    mixed = to_numpy(y) - to_numpy(x)
    assert len(np.unique((to_numpy(y) - mixed).round(6))) == 8
    state = wide.get_initial_state(1)
    step, _ = wide.step(x[:, 0], state)
    assert dtype_of(step) == "float32"
    np.testing.assert_allclose(to_numpy(step), to_numpy(y)[:, 0], atol=0.02)
    narrow = SSMBlock(S4D(state_dim=4), **settings)
    assert dtype_of(narrow(x)) == "bfloat16"


def test_a_backbone_keeps_it_through_files(tmp_path):
    ids = np.arange(6).reshape(1, 6)
    for final_norm in (None, "rms"):
        backbone = SSMBackbone(
            Mamba(state_dim=2),
            num_layers=2,
            hidden_dim=4,
            vocabulary_size=6,
            activation=None,
            gate=None,
            norm="rms",
            prenorm=True,
            final_norm=final_norm,
            residual_dtype="float32",
            dtype="mixed_bfloat16",
        )
        y = backbone(ids)
        rounded = to_numpy(ops.cast(ops.cast(y, "bfloat16"), "float32"))
        assert (rounded == to_numpy(y)).all() == (final_norm is not None)
        assert dtype_of(backbone.blocks[0](backbone.encoder_layer(ids))) == "float32"
        backbone.save_to_preset(tmp_path / "preset")
        loaded = SSMBackbone.from_preset(tmp_path / "preset")
        assert [block.residual_dtype for block in loaded.blocks] == ["float32"] * 2
        np.testing.assert_array_equal(to_numpy(loaded(ids)), to_numpy(y))
        assert keras.models.clone_model(backbone).residual_dtype == "float32"
        config = backbone.get_config()
        del config["residual_dtype"]  # a configuration of an earlier version
        assert SSMBackbone.from_config(config).blocks[1].residual_dtype is None


def test_a_state_is_not_rounded_on_its_way_into_a_block():
    block = SSMBlock(S4D(state_dim=4), dtype="mixed_bfloat16")
    state = ops.full((1, 4, 4), 1.001)
    block.build((None, None, 4))
    seen = []
    call = block.mixer.call

    def recorded(x, mask=None, initial_state=None, **kwargs):
        seen.append(initial_state)
        return call(x, mask=mask, initial_state=initial_state, **kwargs)

    block.mixer.call = recorded
    block(ops.zeros((1, 3, 4)), initial_state=state)
    np.testing.assert_array_equal(to_numpy(seen[0]), np.float32(1.001))


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="`residual_dtype` must be"):
        SSMBlock(S4D(state_dim=4), residual_dtype="float16")
    assert SSMBlock(S4D(4), residual_dtype="float32", dtype="float64").stream_dtype == "float64"
