"""Recorded runs of published Mamba code, and our layers with the recorded weights."""

import json

import numpy as np
import pytest

from keras_ssm.layers import Mamba, Mamba2
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests.backend_tools import BACKEND
from tests.recordings import slow_but
from tests.shared_data import SHARED

KINDS = ("mamba", "mamba2", "falcon_mamba")
MODELS = [f"{kind}_{letter}" for kind in KINDS for letter in "abc"]
# Cases that run each time: one of each kind where compiling takes long.
QUICK = {"torch": MODELS, "tensorflow": ["mamba_b", "mamba2_c", "falcon_mamba_b"]}
QUICK["jax"] = ["mamba_b", "mamba2_c"]
CASES = slow_but(QUICK[BACKEND], MODELS)


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

    @property
    def dt_limit(self):
        return _limit(self.config) if self.config["model_type"] == "mamba2" else (0.0, np.inf)


def recorded(name):
    """Returns a recording, or skips the test."""
    folder = SHARED / "goldens" / "mamba" / name
    if not folder.is_dir():
        pytest.skip(f"no recording {name}: set KERAS_SSM_SHARED to the folder that holds goldens/")
    return Record(folder)


def mixer_of(config):
    """Our layer for a published configuration, unbuilt."""
    common = {
        "state_dim": config["state_size"],
        "expand": config["expand"],
        "conv_width": config["conv_kernel"],
        "conv_bias": config["use_conv_bias"],
        "use_bias": config["use_bias"],
    }
    if config["model_type"] == "mamba2":
        low, high = _limit(config)
        return Mamba2(
            head_dim=config["head_dim"],
            num_groups=config["n_groups"],
            norm_epsilon=config["layer_norm_epsilon"],
            dt_limit=None if high == np.inf else (low, high),
            **common,
        )
    return Mamba(
        inner_dim=config.get("intermediate_size"),
        dt_rank=config["time_step_rank"],
        norm_bcdt=config["model_type"] == "falcon_mamba",
        norm_epsilon=config.get("mixer_rms_eps", 1e-6),
        **common,
    )


def weights_of(layer):
    """Each weight of a mixer by its published name, with what turns one into the other."""
    same, transposed = (lambda x: x), np.transpose
    named = {
        "in_proj.weight": (layer.in_proj.kernel, transposed),
        "out_proj.weight": (layer.out_proj.kernel, transposed),
        "conv1d.weight": (layer.conv_kernel, lambda x: x.reshape(len(x), -1).T),
        "A_log": (layer.A_log, same),
        "D": (layer.D, same),
    }
    if layer.use_bias:
        named["in_proj.bias"] = layer.in_proj.bias, same
        named["out_proj.bias"] = layer.out_proj.bias, same
    if layer.conv_bias:
        named["conv1d.bias"] = layer.conv_bias_weight, same
    if isinstance(layer, Mamba2):
        return {
            **named,
            "dt_bias": (layer.dt_bias, same),
            "norm.weight": (layer.norm_scale, same),
        }
    return {
        **named,
        "x_proj.weight": (layer.x_proj.kernel, transposed),
        "dt_proj.weight": (layer.dt_proj.kernel, transposed),
        "dt_proj.bias": (layer.dt_bias, same),
    }


def layer_of(record, i):
    """Our layer with the weights of layer i."""
    layer = mixer_of(record.config)
    layer.build((None, None, record.config["hidden_size"]))
    for name, (weight, function) in weights_of(layer).items():
        weight.assign(function(record.weights[f"backbone.layers.{i}.mixer.{name}"]))
    return layer


def model_of(record, **kwargs):
    """Our language model with all weights, and each weight's published name."""
    config = record.config
    backbone = SSMBackbone(
        mixer_of(config),
        num_layers=record.layers,
        hidden_dim=config["hidden_size"],
        vocabulary_size=config["vocab_size"],
        activation=None,
        gate=None,
        norm="rms",
        prenorm=True,
        final_norm="rms",
        norm_epsilon=config["layer_norm_epsilon"],
        residual_dtype="float32" if config.get("residual_in_fp32") else None,
    )
    model = SSMCausalLM(backbone, tie_embeddings=config["tie_word_embeddings"], **kwargs)
    named = {
        "backbone.embeddings.weight": (backbone.encoder_layer.embeddings, np.asarray),
        "backbone.norm_f.weight": (backbone.last_norm.scale, np.asarray),
    }
    for i, block in enumerate(backbone.blocks):
        named[f"backbone.layers.{i}.norm.weight"] = block.norm.scale, np.asarray
        for name, pair in weights_of(block.mixer).items():
            named[f"backbone.layers.{i}.mixer.{name}"] = pair
    if model.head is not None:
        named["lm_head.weight"] = model.head.kernel, np.transpose
    for name, (weight, function) in named.items():
        weight.assign(function(record.weights[name]))
    return model, named


def _limit(config):
    """The bounds of dt; infinity is written `{"__float__": "Infinity"}`."""
    bounds = config["time_step_limit"]
    return [float(n["__float__"] if isinstance(n, dict) else n) for n in bounds]
