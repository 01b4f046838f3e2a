"""Models as checkpoints of the official classes: their names and shapes, and the way back."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file
from keras_ssm.layers import DSS, S4, S4D, S5
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.shared_data import checkpoint

pytestmark = pytest.mark.once("torch")

X = np.random.default_rng(0).standard_normal((2, 12, 3)).astype("float32")


def make_model(mixer, head=SSMClassifier, **arguments):
    arguments = {"num_layers": 2, "hidden_dim": 4, "input_dim": 3, **arguments}
    model = head(SSMBackbone(mixer, **arguments), 3)
    rng = np.random.default_rng(1)
    for weight in model.weights:  # as if trained: zeros and ones would hide mistakes
        if weight.name != "step_scale":
            noise = 0.1 * rng.random(weight.shape).astype(weight.dtype)
            weight.assign(to_numpy(weight) + noise)
    return model


def official(name, **settings):
    """The tensors of a recorded checkpoint, and of the model that it becomes, written again."""
    return read_checkpoint_file(checkpoint(name)).tensors, load_checkpoint(
        checkpoint(name), **settings
    )


@pytest.mark.parametrize(
    ("name", "to", "settings"),
    [
        ("a_example_s4d_postnorm.pth", "s4-example", {"prenorm": False}),
        ("b_example_s4block_diag.pth", "s4-block", {"prenorm": True}),
        ("b_example_s4block_dplr.pth", "s4-block", {"prenorm": False}),
        ("s5_last_ln_post.msgpack", "s5-flax", {}),
        ("s5_listops.msgpack", "s5-flax", {}),
        ("s5_pathx.msgpack", "s5-flax", {}),
        ("s5_aan.msgpack", "s5-flax", {}),
    ],
)
def test_the_official_tensors_again(tmp_path, name, to, settings):
    if to != "s5-flax":
        pytest.importorskip("torch")
    expected, model = official(name, **settings)
    export_checkpoint(model, tmp_path / "out", to)
    found = read_checkpoint_file(tmp_path / "out").tensors
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert (found[key].shape, found[key].dtype) == (value.shape, value.dtype), key
        if key.endswith("l_kernel"):
            assert found[key] == 0  # and C is plain
        elif not ("dplr" in name and key.endswith("kernel.C")):
            np.testing.assert_array_equal(found[key], value, key)
    # The file and the JSON beside it need no settings, and converting it back changes nothing.
    reloaded = load_checkpoint(tmp_path / "out")
    assert reloaded.backbone.get_config()["prenorm"] == model.backbone.prenorm
    for a, b in zip(reloaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


MODELS = {
    "s4": (S4(state_dim=8, seed=0), "s4-block", {}),
    "s4-rank": (
        S4(state_dim=8, init="legt", rank=2, num_ssm=2, dt_transform="softplus", seed=0),
        "s4-block",
        {"prenorm": True, "gate": "linear", "activation": "silu"},
    ),
    "s4d": (
        S4D(state_dim=8, bidirectional=True, channels=2, dt_tie=False, bandlimit=0.9, seed=0),
        "s4-block",
        {"dropout": 0.25},
    ),
    "s4d-bilinear": (S4D(state_dim=8, discretization="bilinear", seed=0), "s4-block", {}),
    "s5": (
        S5(state_dim=8, bidirectional=True, clip_eigs=True, discretization="bilinear", seed=0),
        "s5-flax",
        {"norm": "batch", "gate": "half_glu2", "activation": "gelu_tanh", "mask_inputs": False},
    ),
    "s5-ours": (
        S5(state_dim=6, conj_sym=False, blocks=3, seed=0),
        "s5-flax",
        {"gate": None, "norm_epsilon": 1e-3, "activation": "gelu"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_out_and_in_again_is_exact(tmp_path, name):
    mixer, to, arguments = MODELS[name]
    if to != "s5-flax":
        pytest.importorskip("torch")
    model = make_model(mixer, **arguments)
    model.preprocessor.scale = 0.5
    remarks = export_checkpoint(model, tmp_path / "out", to)
    reloaded = load_checkpoint(tmp_path / "out")
    for a, b in zip(reloaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert reloaded.preprocessor.scale == 0.5
    for key, value in arguments.items():
        assert reloaded.backbone.get_config()[key] == value, key
    if name == "s5-ours":
        assert any("gelu_tanh" in remark for remark in remarks)
    if keras.config.backend() == "torch":  # the same weights and configuration
        assert relative_error(reloaded(X), model(X)) == 0


def test_B_goes_into_C_of_the_minimal_layer(tmp_path):
    pytest.importorskip("torch")
    model = make_model(S4D(state_dim=8, num_ssm=2, dt_transform="softplus", seed=0))
    export_checkpoint(model, tmp_path / "out", "s4-example")
    reloaded = load_checkpoint(tmp_path / "out")
    assert relative_error(reloaded(X), model(X)) < 1e-6


SCALED = {
    "s4-example": (S4D, {}),
    "s4-block exp": (S4, {}),
    "s4-block": (S4D, {"dt_transform": "softplus"}),
    "s5-flax": (S5, {}),
}


@pytest.mark.parametrize("to", SCALED)
def test_the_step_scale_goes_into_the_steps(tmp_path, to):
    cls, arguments = SCALED[to]
    norm = {"activation": "gelu_tanh", "norm": "batch"} if cls is S5 else {}
    model = make_model(cls(state_dim=8, seed=0, **arguments), gate="glu", **norm)
    expected = to_numpy(model(X))
    model.step_scale = 2.5
    assert relative_error(model(X), expected) > 1e-3
    export_checkpoint(model, tmp_path / "out", to.split()[0])
    reloaded = load_checkpoint(tmp_path / "out")
    assert relative_error(reloaded(X), model(X)) < 1e-5
    if to == "s4-block":
        vars(model.backbone.blocks[0].mixer)["bandlimit"] = 1.0  # no longer to be set
        with pytest.raises(ValueError, match=r"band limit.*Received: step_scale=2.5"):
            export_checkpoint(model, tmp_path / "other", to)


@pytest.mark.parametrize(
    ("model", "to", "match"),
    [
        ((S4(state_dim=8),), "s4-example", "Received: mixer S4"),
        ((DSS(state_dim=4),), "s4-block", "Received: mixer DSS"),
        ((S4D(state_dim=8),), "s5-flax", "Received: mixer S4D"),
        ((S4D(state_dim=8, bidirectional=True),), "s4-example", "bidirectional=True"),
        ((S4D(state_dim=8, max_kernel_length=9),), "s4-block", "max_kernel_length=9"),
        ((S4D(state_dim=8), SSMPairClassifier), "s4-block", "SSMPairClassifier"),
        ((S4D(state_dim=8),), "s4", "`to` must be one of"),
    ],
)
def test_what_the_official_classes_do_not_cover(tmp_path, model, to, match):
    with pytest.raises(ValueError, match=match) as error:
        export_checkpoint(make_model(*model, num_layers=1), tmp_path / "out", to)
    assert "Received" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mixer", "to"), [(S4D, "s4-block"), (S5, "s5-flax")])
def test_a_bottleneck_is_not_left_out_in_silence(tmp_path, mixer, to):
    model = make_model(mixer(state_dim=8), num_layers=1, bottleneck=4)
    with pytest.raises(ValueError, match="Received: bottleneck=4"):
        export_checkpoint(model, tmp_path / "out", to)


def test_norms_and_encoders_that_example_py_lacks(tmp_path):
    for arguments in (
        {"norm": "batch"},
        {"final_norm": "layer"},
        {"vocabulary_size": 9, "input_dim": 1},
        {"encoder": None, "hidden_dim": 3},
    ):
        with pytest.raises(ValueError, match=f"Received: {next(iter(arguments))}="):
            model = make_model(S4D(state_dim=8), num_layers=1, **arguments)
            export_checkpoint(model, tmp_path / "out", "s4-block")


def test_command(tmp_path):
    runner, out = CliRunner(), tmp_path / "s5.msgpack"
    result = runner.invoke(cli.main, ["convert", "s5_digits", str(out), "--to", "s5-flax"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s5.msgpack.json").read_text())["ssm_size_base"] == 64
    digits = np.random.default_rng(0).integers(17, size=(2, 64)).astype("float32")
    model = SSMClassifier.from_preset("s5_digits")
    reloaded = load_checkpoint(out)
    expected = model.predict(digits, verbose=0)
    assert relative_error(reloaded.predict(digits, verbose=0), expected) < 1e-6
    result = runner.invoke(cli.main, ["convert", "s5_digits", str(out), "--to", "s4-block"])
    assert result.exit_code == 1 and "Received: mixer S5" in result.output
    more = ["convert", "s5_digits", str(out), "--to", "s5-flax", "--set", "prenorm=true"]
    result = runner.invoke(cli.main, more)
    assert result.exit_code == 1 and "Received: further options" in result.output
    result = runner.invoke(cli.main, ["convert", str(out), str(out), "--to", "s5-flax"])
    assert result.exit_code == 1 and "Received: preset=" in result.output
