"""Checkpoints of safari around H3, there and back."""

import numpy as np
import pytest

from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.convert.checkpoint import read_model
from keras_ssm.layers import H3
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.convert.test_convert_kernels import LIGHTNING, around, expected
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")

X = np.random.default_rng(0).standard_normal((2, 12, 3)).astype("float32")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("head1_l32", {}),
        ("head4_l48", {}),
        ("head1_zoh_inv_l257", {"discretization": "zoh"}),
        ("head1_lmax_short_l64", {"max_kernel_length": 40}),
    ],
)
def test_a_checkpoint_gives_the_recorded_outputs(name, settings, tmp_path):
    recording = golden(f"relatives/h3/{name}")
    np.savez(tmp_path / "model.npz", **around(recording, *LIGHTNING))
    model, report = read_model(tmp_path / "model.npz", overrides=settings)
    assert report.format == "h3-lightning"
    assert relative_error(model(recording[0]["u"]), expected(recording)) < 1e-5
    assert len([r for r in report.remarks if "rows of `output_dense`" in r]) == ("head4" in name)


def classifier(mixer, **arguments):
    around = {"activation": None, "gate": None, **arguments}
    model = SSMClassifier(SSMBackbone(mixer, 2, 4, input_dim=3, **around), 3)
    rng = np.random.default_rng(1)
    for weight in model.weights:  # as if trained: zeros and ones would hide mistakes
        if weight.name not in ("step_scale", "seed_generator_state"):
            weight.assign(to_numpy(weight) + 0.1 * rng.random(weight.shape).astype(weight.dtype))
    return model


@pytest.mark.parametrize(
    ("mixer", "arguments"),
    [
        (H3(4, discretization="zoh", seed=0), {"prenorm": True, "final_norm": "layer"}),
        (H3(6, head_dim=2, seed=0), {"mask_inputs": False}),
    ],
)
def test_out_and_in_again_is_exact(mixer, arguments, tmp_path):
    pytest.importorskip("torch")
    model = classifier(mixer, **arguments)
    assert len(export_checkpoint(model, tmp_path / "out", to="h3-lightning")) == mixer.head_dim - 1
    again = load_checkpoint(tmp_path / "out")
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for key, value in arguments.items():
        assert again.backbone.get_config()[key] == value, key
    assert relative_error(again(X), model(X)) == 0


@pytest.mark.parametrize(
    ("mixer", "arguments", "words"),
    [
        (H3(4, shift_dim=3), {}, "`shift_dim` must be `state_dim`"),
        (H3(4), {"gate": "glu"}, "need gate=None. Received: gate='glu'"),
    ],
)
def test_what_the_official_layer_cannot_be(mixer, arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_checkpoint(classifier(mixer, **arguments), tmp_path / "x", to="h3-lightning")
