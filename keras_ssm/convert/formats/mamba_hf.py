"""Mamba, Mamba-2 and FalconMamba in the format of transformers: `config.json`."""

import math

from keras_ssm.convert.formats import mamba_weights
from keras_ssm.convert.formats.mamba_fields import MambaSpec, bounds, limit, rank
from keras_ssm.convert.formats.published_fields import TRANSFORMERS, Fields, count, flag, number
from keras_ssm.convert.mapping import check_supported

recognises, read = mamba_weights.recognises, mamba_weights.refuse_alone

CONFIG = "config.json"

# What an absent field means, by the type of the model.
DEFAULTS = {
    "mamba": {"vocab_size": 50280, "hidden_size": 768, "state_size": 16, "num_hidden_layers": 32},
    "mamba2": {"vocab_size": 32768, "hidden_size": 4096, "state_size": 128},
}
DEFAULTS["mamba2"]["num_hidden_layers"] = 64
DEFAULTS["falcon_mamba"] = DEFAULTS["mamba"]
TIED = {"mamba": True, "mamba2": False, "falcon_mamba": True}

# Fields of training and initialisation, and remains of converters: none changes a number.
HARMLESS = (
    *TRANSFORMERS,
    *("max_position_embeddings", "use_mambapy", "use_falcon_mambapy", "use_associative_scan"),
    *("chunk_size", "rescale_prenorm_residual", "time_step_scale", "time_step_init_scheme"),
    *("fused_add_norm", "pad_vocab_size_multiple", "ssm_cfg", "norm_before_gate"),
)


def read_config(config: dict, source: str) -> MambaSpec:
    """Reads a `config.json`.

    Args:
        config: dict.
        source: str. What messages call it.

    Returns:
        `MambaSpec`.

    Raises:
        ValueError: for fields of other kinds, that contradict each other, or that are not known.
    """
    fields, model_type = Fields(config, source), config["model_type"]
    defaults = DEFAULTS[model_type]

    def counted(name, ours):
        return fields.take(name, defaults[name], count, ours)

    backbone = {
        "num_layers": counted("num_hidden_layers", "num_layers"),
        "hidden_dim": counted("hidden_size", "hidden_dim"),
        "vocabulary_size": counted("vocab_size", "vocabulary_size"),
        "norm": "rms",
        "norm_epsilon": fields.take("layer_norm_epsilon", 1e-5, number, "norm_epsilon"),
        "residual_dtype": _residual(fields.take("residual_in_fp32", True, flag)),
    }
    mixer = {
        "state_dim": counted("state_size", "state_dim"),
        "expand": fields.take("expand", 2, count, "expand"),
        "conv_width": fields.take("conv_kernel", 4, count, "conv_width"),
        "conv_bias": fields.take("use_conv_bias", True, flag, "conv_bias"),
        "use_bias": fields.take("use_bias", False, flag, "use_bias"),
        "dt_min": fields.take("time_step_min", 1e-3, number, "dt_min"),
        "dt_max": fields.take("time_step_max", 1e-1, number, "dt_max"),
        "dt_floor": fields.take("time_step_floor", 1e-4, number, "dt_floor"),
        "residual_layers": backbone["num_layers"],
    }
    read_mixer = _mamba2 if model_type == "mamba2" else _mamba
    kind = read_mixer(fields, mixer, backbone, model_type)
    tied = fields.take("tie_word_embeddings", TIED[model_type], flag, "tie_embeddings")
    fields.require("hidden_act", ("silu", "swish"), "the convolution is followed by SiLU")
    fields.require("rms_norm", (True,), "blocks of this format have RMS norm")
    for name, expected in (("d_model", "hidden_dim"), ("n_layer", "num_layers")):
        fields.require(name, (backbone[expected],), f"it contradicts {expected}")
    fields.check_all_read(HARMLESS)
    return MambaSpec(kind, mixer, backbone, tied, fields.rows, [])


def _mamba(fields, mixer, backbone, model_type):
    width = mixer["expand"] * backbone["hidden_dim"]
    inner = fields.take("intermediate_size", width, count, "inner_dim")
    fields.require("d_inner", (inner,), f"it contradicts intermediate_size={inner}")
    mixer["inner_dim"] = None if inner == width else inner
    mixer["dt_rank"] = fields.take("time_step_rank", "auto", rank, "dt_rank")
    if model_type == "falcon_mamba":
        mixer["norm_bcdt"] = True
        mixer["norm_epsilon"] = fields.take("mixer_rms_eps", 1e-6, number, "mixer norm_epsilon")
    return "mamba"


def _mamba2(fields, mixer, backbone, model_type):
    heads = fields.take("num_heads", 128, count)
    mixer["head_dim"] = fields.take("head_dim", 64, count, "head_dim")
    mixer["num_groups"] = fields.take("n_groups", 8, count, "num_groups")
    mixer["norm_epsilon"] = backbone["norm_epsilon"]
    mixer["dt_limit"] = limit(fields.take("time_step_limit", (0.0, math.inf), bounds))
    fields.rows["dt_limit"] = mixer["dt_limit"], "file", True
    fields.take("time_step_rank", "auto", lambda value: True)  # a field of Mamba only
    fields.take("intermediate_size", None, lambda value: True)  # the library ignores it
    if heads * mixer["head_dim"] != mixer["expand"] * backbone["hidden_dim"]:
        raise ValueError(
            f"`num_heads` times `head_dim` in {fields.source} must be `expand` times "
            f"`hidden_size`. Received: num_heads={heads}, head_dim={mixer['head_dim']}, "
            f"expand={mixer['expand']}, hidden_size={backbone['hidden_dim']}"
        )
    return "mamba2"


def _residual(in_float32):
    return "float32" if in_float32 else None


ARCHITECTURES = {
    "mamba": "MambaForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
    "falcon_mamba": "FalconMambaForCausalLM",
}


def write_config(spec: MambaSpec) -> dict:
    """Returns a model's `config.json`.

    Args:
        spec: `MambaSpec`.

    Raises:
        ValueError: for a model that the classes of transformers do not cover.
    """
    mixer, backbone = spec.mixer, spec.backbone
    width, inner, expand = backbone["hidden_dim"], spec.inner_dim, mixer["expand"]
    check_supported(norm=(backbone["norm"], ("rms",)))
    model_type = spec.kind
    config = {
        "conv_kernel": mixer["conv_width"],
        "hidden_act": "silu",
        "hidden_size": width,
        "layer_norm_epsilon": backbone["norm_epsilon"],
        "num_hidden_layers": backbone["num_layers"],
        "residual_in_fp32": backbone["residual_dtype"] is not None,
        "state_size": mixer["state_dim"],
        "tie_word_embeddings": spec.tie_embeddings,
        "time_step_floor": mixer["dt_floor"],
        "time_step_max": mixer["dt_max"],
        "time_step_min": mixer["dt_min"],
        "use_bias": mixer["use_bias"],
        "use_cache": True,
        "use_conv_bias": mixer["conv_bias"],
        "vocab_size": backbone["vocabulary_size"],
    }
    if spec.kind == "mamba2":
        check_supported(
            norm_before_gate=(mixer["norm_before_gate"], (False,)),
            gated_norm=(mixer["gated_norm"], (True,)),
            D_per_feature=(mixer["D_per_feature"], (False,)),
            norm_epsilon=(mixer["norm_epsilon"], (backbone["norm_epsilon"],)),
            inner_dim=(inner, (inner // width * width,)),
        )
        low, high = mixer["dt_limit"] or (0.0, math.inf)
        config |= {
            "chunk_size": mixer["chunk_size"] or 256,
            "expand": inner // width,
            "head_dim": mixer["head_dim"],
            "n_groups": mixer["num_groups"],
            "num_heads": inner // mixer["head_dim"],
            # The library writes it like this since version 5.
            "time_step_limit": [low, {"__float__": "Infinity"} if high == math.inf else high],
        }
    else:
        config |= {
            "expand": int(expand) if expand == int(expand) else math.ceil(expand),
            "intermediate_size": inner,
            "time_step_rank": spec.dt_rank,
        }
        if mixer["norm_bcdt"]:
            model_type = "falcon_mamba"
            config["mixer_rms_eps"] = mixer["norm_epsilon"]
    architecture = ARCHITECTURES[model_type]
    return {
        "architectures": [architecture],
        **dict(sorted(config.items())),
        "model_type": model_type,
    }
