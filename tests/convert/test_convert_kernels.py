"""Checkpoints of safari's long convolutions and of SGConv, there and back."""

import json

import numpy as np
import pytest

from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.convert.checkpoint import read_model
from keras_ssm.layers import S4, S4D, S4ND, LongConv, SGConv
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMImageClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")

X = np.random.default_rng(0).standard_normal((2, 12, 3)).astype("float32")


def around(recording, layer, norm, head):
    """Tensors of a classifier of one recorded layer, which passes on what it reads."""
    data, _ = recording
    width = data["u"].shape[-1]
    eye, zero = np.eye(width, dtype="float32"), np.zeros(width, "float32")
    tensors = {layer + k.removeprefix("sd/"): data[k] for k in data if k.startswith("sd/")}
    tensors |= {"encoder.weight": eye, "encoder.bias": zero}
    tensors |= {f"{norm}weight": 1.0 + zero, f"{norm}bias": zero}
    return tensors | {f"{head}.weight": eye, f"{head}.bias": zero}


def expected(recording):
    """The mean of the normed sum of inputs and recorded outputs."""
    data, _ = recording
    z = data["u"].astype("float64") + data["f64/y"]
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    return z.mean(axis=1)


LIGHTNING = ("model.layers.0.layer.", "model.layers.0.norm.norm.", "decoder.output_transform")
EXAMPLE = ("conv_layers.0.", "norms.0.", "decoder")


@pytest.mark.parametrize(
    ("name", "names", "settings"),
    [
        ("longconv/causal_l64", LIGHTNING, {"squash": 0.003}),
        ("longconv/smooth_ch2_l64", LIGHTNING, {"squash": 0.001, "smoothing": 5}),
        ("longconv/standalone_2l_l64", EXAMPLE, {"squash": 0.003, "prenorm": False}),
        ("sgconv/cat_learnable_l48", LIGHTNING, {}),
        ("sgconv/bidir_ch2_decay_l64", LIGHTNING, {}),
        ("sgconv/sum_init_scale_l64", LIGHTNING, {"composition": "sum", "max_length": 64}),
    ],
)
def test_a_checkpoint_gives_the_recorded_outputs(name, names, settings, tmp_path):
    recording = golden(f"relatives/{name}")
    np.savez(tmp_path / "model.npz", **around(recording, *names))
    model, report = read_model(tmp_path / "model.npz", overrides=settings)
    assert relative_error(model(recording[0]["u"]), expected(recording)) < 1e-5
    warned = [remark for remark in report.remarks if "fewer than 64 steps" in remark]
    assert len(warned) == ("longconv" in name)
    if "squash" in settings:
        with pytest.raises(ValueError, match=r"`squash` cannot be seen.*Received: no squash"):
            load_checkpoint(tmp_path / "model.npz", prenorm=False)


@pytest.mark.parametrize("name", ["diag_2d_8x8", "diag_2d_causal_bandlimit_rate2", "dplr_2d_8x12"])
def test_a_checkpoint_of_images_gives_the_recorded_outputs(name, tmp_path):
    recording = golden(f"relatives/s4nd/{name}")
    config = recording[1]["config"]
    np.savez(tmp_path / "model.npz", **around(recording, *LIGHTNING))
    given = {"bandlimit": config["bandlimit"]} if "bandlimit" in config else {}
    model, _ = read_model(tmp_path / "model.npz", overrides=given)
    assert isinstance(model, SSMImageClassifier) and model.preprocessor.axes == 2
    model.step_scale = config["rate"]
    z = recording[0]["u"].astype("float64") + recording[0]["f64/y"]
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    assert relative_error(model(recording[0]["u"]), z.mean(axis=(1, 2))) < 1e-5


@pytest.mark.parametrize(
    "arguments",
    [
        {"mixer": S4D(4, num_ssm=2, bandlimit=0.5), "rank": 2, "channels": 2},
        {"mixer": S4(4), "bidirectional": False, "axes": 3},
    ],
    ids=["S4D", "S4"],
)
def test_models_of_images_go_out_and_come_back(arguments, tmp_path):
    mixer = S4ND(**arguments, seed=0)
    backbone = SSMBackbone(mixer, num_layers=2, hidden_dim=4, input_dim=3, dropout=0.1)
    model = SSMImageClassifier(backbone, 3)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name != "step_scale":
            noise = 0.1 * rng.random(weight.shape).astype(weight.dtype)
            weight.assign(to_numpy(weight) + noise)
    path = tmp_path / "model.ckpt"
    assert export_checkpoint(model, path, to="s4nd-lightning") == []
    again = load_checkpoint(path)
    x = rng.standard_normal((2, *(5, 6, 4)[: mixer.axes], 3)).astype("float32")
    assert relative_error(again(x), to_numpy(model(x))) < 1e-5
    assert again.backbone.blocks[0].mixer.rank == mixer.rank and again.backbone.dropout == 0.1


def test_images_that_the_official_class_cannot_read_stay(tmp_path):
    mixed = SSMBackbone(S4ND([S4D(4), S4(4)]), num_layers=1, hidden_dim=4)
    with pytest.raises(ValueError, match="Axes of the official S4ND are S4D or S4 of the same"):
        export_checkpoint(SSMImageClassifier(mixed, 2), tmp_path / "x.ckpt", to="s4nd-lightning")


def classifier(mixer, **arguments):
    backbone = SSMBackbone(mixer, num_layers=2, hidden_dim=4, input_dim=3, **arguments)
    model = SSMClassifier(backbone, 3)
    rng = np.random.default_rng(1)
    for weight in model.weights:  # as if trained: zeros and ones would hide mistakes
        noise = 0.1 * rng.random(weight.shape).astype(weight.dtype)
        weight.assign(to_numpy(weight) + noise)
    for block in model.backbone.blocks:  # at lag -8, beyond the longest input
        if block.mixer.bidirectional and isinstance(mixer, LongConv):
            entries = to_numpy(block.mixer.entries).copy()
            entries[block.mixer.channels :, :, -1] = 0.0
            block.mixer.entries.assign(entries)
    return model


MODELS = {
    "longconv-example": (LongConv(8, channels=2, bidirectional=True, seed=0), {"dropout": 0.25}),
    "longconv-lightning": (
        LongConv(8, init="double_exp", squash=0.01, smoothing=3, kernel_dropout=0.0, seed=0),
        {"prenorm": True, "final_norm": "layer", "gate": "linear", "activation": "silu"},
    ),
    "sgconv-lightning": (
        SGConv(12, kernel_dim=4, num_scales=2, decay_max=3.0, interpolation="nearest", seed=0),
        {"gate": "linear"},
    ),
    "sgconv-lightning learnable": (
        SGConv(12, kernel_dim=4, learnable_decay=True, composition="sum", channels=2, seed=0),
        {"mask_inputs": False},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_out_and_in_again_is_exact(name, tmp_path):
    pytest.importorskip("torch")
    mixer, arguments = MODELS[name]
    model = classifier(mixer, **arguments)
    assert not export_checkpoint(model, tmp_path / "out", to=name.split()[0])
    reloaded = load_checkpoint(tmp_path / "out")
    for a, b in zip(reloaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    config = reloaded.backbone.get_config()
    for key, value in arguments.items():
        assert config[key] == value, key
    ours, theirs = (m.backbone.blocks[0].mixer.get_config() for m in (model, reloaded))
    for key in set(ours) - {"init", "seed", "num_scales", "name"}:
        assert ours[key] == theirs[key], key
    assert relative_error(reloaded(X), model(X)) == 0


def test_what_cannot_be_converted(tmp_path):
    tensors = around(golden("relatives/longconv/causal_l64"), *LIGHTNING)
    np.savez(tmp_path / "model.npz", **tensors)
    for option in ("smooth_freq", "weight_norm"):
        config = {"model": {"layer": {option: True, "lam": 0.003}}}
        (tmp_path / "model.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"Received: {option}=True"):
            load_checkpoint(tmp_path / "model.npz", config=tmp_path / "model.json")
    with pytest.raises(ValueError, match=r"must have a mixer|with a mixer LongConv.*mixer SGConv"):
        export_checkpoint(classifier(SGConv(8, 4)), tmp_path / "x", to="longconv-example")
    with pytest.raises(ValueError, match="bidirectional=False"):
        export_checkpoint(classifier(LongConv(8)), tmp_path / "x", to="longconv-example")
