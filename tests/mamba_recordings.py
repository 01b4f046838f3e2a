"""Recorded runs of published Mamba code, and our layers with the recorded weights."""

import json

import numpy as np
import pytest

from keras_ssm.layers import Mamba, Mamba2
from tests.shared_data import SHARED

KINDS = ("mamba", "mamba2", "falcon_mamba")
MODELS = [f"{kind}_{letter}" for kind in KINDS for letter in "abc"]


class Record:
    """The arrays, weights and configuration of a recording."""

    def __init__(self, folder):
        from safetensors.numpy import load_file

        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        with np.load(folder / "record64.npz") as file:
            self.arrays = dict(file)
        self.layers = self.config["num_hidden_layers"]

    def __getitem__(self, key):
        return self.arrays[key]


def recorded(name):
    """Returns a recording, or skips the test."""
    folder = SHARED / "goldens" / "mamba" / name
    if not folder.is_dir():
        pytest.skip(f"no recording {name}: set KERAS_SSM_SHARED to the folder that holds goldens/")
    return Record(folder)


def layer_of(record, i):
    """Our layer with the weights of layer i, each assigned by hand from its published name."""
    config = record.config
    common = {
        "state_dim": config["state_size"],
        "expand": config["expand"],
        "conv_width": config["conv_kernel"],
        "conv_bias": config["use_conv_bias"],
        "use_bias": config["use_bias"],
    }
    if config["model_type"] == "mamba2":
        low, high = _limit(config)
        layer = Mamba2(
            head_dim=config["head_dim"],
            num_groups=config["n_groups"],
            norm_epsilon=config["layer_norm_epsilon"],
            dt_limit=None if high == np.inf else (low, high),
            **common,
        )
    else:
        layer = Mamba(
            inner_dim=config.get("intermediate_size"),
            dt_rank=config["time_step_rank"],
            norm_bcdt=config["model_type"] == "falcon_mamba",
            norm_epsilon=config.get("mixer_rms_eps", 1e-6),
            **common,
        )
    layer.build((None, None, config["hidden_size"]))
    take = lambda name: record.weights[f"backbone.layers.{i}.mixer.{name}"]  # noqa: E731
    for name in ("in_proj", "out_proj"):
        getattr(layer, name).kernel.assign(take(f"{name}.weight").T)
        if config["use_bias"]:
            getattr(layer, name).bias.assign(take(f"{name}.bias"))
    layer.conv_kernel.assign(take("conv1d.weight")[:, 0].T)
    if config["use_conv_bias"]:
        layer.conv_bias_weight.assign(take("conv1d.bias"))
    for name in ("A_log", "D"):
        getattr(layer, name).assign(take(name))
    if config["model_type"] == "mamba2":
        layer.dt_bias.assign(take("dt_bias"))
        layer.norm_scale.assign(take("norm.weight"))
    else:
        layer.x_proj.kernel.assign(take("x_proj.weight").T)
        layer.dt_proj.kernel.assign(take("dt_proj.weight").T)
        layer.dt_bias.assign(take("dt_proj.bias"))
    return layer


def _limit(config):
    """The bounds of dt; infinity is written `{"__float__": "Infinity"}`."""
    bounds = config["time_step_limit"]
    return [float(n["__float__"] if isinstance(n, dict) else n) for n in bounds]
