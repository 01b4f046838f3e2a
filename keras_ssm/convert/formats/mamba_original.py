"""Mamba and Mamba-2 in the format of state-spaces/mamba: `config.json` with `ssm_cfg`."""

import math

from keras_ssm.convert.formats import mamba_weights
from keras_ssm.convert.formats.mamba_fields import MambaSpec, bounds, limit, rank
from keras_ssm.convert.formats.published_fields import UNSET, Fields, count, flag, names, number
from keras_ssm.convert.mapping import check_supported

recognises, read = mamba_weights.recognises, mamba_weights.refuse_alone

CONFIG = "config.json"

EPSILON = 1e-5  # of every norm: the format has no field for it

LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2"}

# Arguments that initialise mixers or make them fast. They change nothing in a trained model.
_OF_ANY_MIXER = ("layer", "layer_idx", "device", "dtype")
HARMLESS = {
    "mamba": (*_OF_ANY_MIXER, "dt_init", "dt_scale", "use_fast_path"),
    "mamba2": (
        *(*_OF_ANY_MIXER, "A_init_range", "conv_init", "chunk_size", "use_mem_eff_path"),
        *("process_group", "sequence_parallel"),
    ),
}


def read_config(config: dict, source: str) -> MambaSpec:
    """Reads a `config.json`; old files lack fields, which then have their defaults.

    Args:
        config: dict.
        source: str. What messages call it.

    Returns:
        `MambaSpec`.

    Raises:
        ValueError: for fields of other kinds, that have no counterpart here, or are not known.
    """
    fields = Fields(config, source)
    width = fields.take("d_model", UNSET, count, "hidden_dim")
    layers = fields.take("n_layer", UNSET, count, "num_layers")
    tokens = fields.take("vocab_size", UNSET, count)
    multiple = fields.take("pad_vocab_size_multiple", 8, count)
    rows = math.ceil(tokens / multiple) * multiple
    fields.rows["vocabulary_size"] = rows, "file", True
    residual = fields.take("residual_in_fp32", True, flag)
    norm = "rms" if fields.take("rms_norm", True, flag) else "layer"
    fields.rows["norm"] = norm, "file", True
    tied = fields.take("tie_embeddings", True, flag, "tie_embeddings")
    fields.require("attn_layer_idx", ([], None), "there are no attention layers")
    fields.require("d_intermediate", (0, None), "blocks have no MLP beside their mixer")
    inner = Fields(fields.take("ssm_cfg", {}, names), f"`ssm_cfg` of {source}")
    fields.check_all_read(("fused_add_norm", "attn_cfg"))
    inner.require("layer", tuple(LAYERS), f"mixers are {' and '.join(LAYERS)}")
    kind = LAYERS[inner.config.get("layer", "Mamba1")]
    mixer = _mixer(inner, kind, width)
    mixer["residual_layers"] = layers
    remarks = []
    if rows > tokens:
        remarks.append(
            f"The table has {rows} rows for {tokens} tokens: the last {rows - tokens} stand for "
            "none, and are logits all the same, as published."
        )
    backbone = {
        "num_layers": layers,
        "hidden_dim": width,
        "vocabulary_size": rows,
        "norm": norm,
        "norm_epsilon": EPSILON,
        "residual_dtype": "float32" if residual else None,
    }
    spec_rows = {**fields.rows, **inner.rows}
    return MambaSpec(kind, mixer, backbone, tied, spec_rows, remarks)


def _mixer(fields, kind, width):
    expand = fields.take("expand", 2, number, "expand")
    mixer = {
        "state_dim": fields.take("d_state", 16 if kind == "mamba" else 128, count, "state_dim"),
        "expand": expand,
        "conv_width": fields.take("d_conv", 4, count, "conv_width"),
        "conv_bias": fields.take("conv_bias", True, flag, "conv_bias"),
        "use_bias": fields.take("bias", False, flag, "use_bias"),
        "dt_min": fields.take("dt_min", 1e-3, number, "dt_min"),
        "dt_max": fields.take("dt_max", 1e-1, number, "dt_max"),
        "dt_floor": fields.take("dt_init_floor", 1e-4, number, "dt_floor"),
    }
    inner = int(expand * width)
    if inner != expand * width:  # truncated here, but rounded in our layers
        mixer["inner_dim"] = inner
    if kind == "mamba":
        mixer["dt_rank"] = fields.take("dt_rank", "auto", rank, "dt_rank")
    else:
        fields.require("d_ssm", (None, inner), "there is no MLP beside the heads")
        limits = fields.take("dt_limit", (0.0, math.inf), bounds)
        mixer |= {
            "head_dim": fields.take("headdim", 64, count, "head_dim"),
            "num_groups": fields.take("ngroups", 1, count, "num_groups"),
            "dt_limit": limit(limits),
            "norm_before_gate": fields.take("norm_before_gate", False, flag, "norm_before_gate"),
            "gated_norm": fields.take("rmsnorm", True, flag, "gated_norm"),
            "D_per_feature": fields.take("D_has_hdim", False, flag, "D_per_feature"),
            "norm_epsilon": EPSILON,
        }
        fields.rows["dt_limit"] = mixer["dt_limit"], "file", True
    fields.check_all_read(HARMLESS[kind])
    return mixer


def write_config(spec: MambaSpec) -> dict:
    """Returns a model's `config.json`, with what is not the default of the mixers' classes.

    Args:
        spec: `MambaSpec`.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    mixer, backbone = spec.mixer, spec.backbone
    width, expand = backbone["hidden_dim"], spec.mixer["expand"]
    if int(expand * width) != spec.inner_dim:
        expand = spec.inner_dim / width
    check_supported(
        norm_epsilon=(backbone["norm_epsilon"], (EPSILON,)),
        inner_dim=(spec.inner_dim, (int(expand * width),)),
    )
    named = {
        "d_state": (mixer["state_dim"], 16 if spec.kind == "mamba" else 128),
        "d_conv": (mixer["conv_width"], 4),
        "expand": (expand, 2),
        "dt_min": (mixer["dt_min"], 1e-3),
        "dt_max": (mixer["dt_max"], 1e-1),
        "dt_init_floor": (mixer["dt_floor"], 1e-4),
        "conv_bias": (mixer["conv_bias"], True),
        "bias": (mixer["use_bias"], False),
    }
    if spec.kind == "mamba":
        check_supported(norm_bcdt=(mixer["norm_bcdt"], (False,)))
        named["dt_rank"] = spec.dt_rank, math.ceil(width / 16)
    else:
        check_supported(norm_epsilon=(mixer["norm_epsilon"], (EPSILON,)))
        bounds = mixer["dt_limit"] and list(mixer["dt_limit"])
        named |= {
            "headdim": (mixer["head_dim"], 64),
            "ngroups": (mixer["num_groups"], 1),
            "dt_limit": (bounds, None),
            "rmsnorm": (mixer["gated_norm"], True),
            "norm_before_gate": (mixer["norm_before_gate"], False),
            "D_has_hdim": (mixer["D_per_feature"], False),
        }
    arguments = {name: value for name, (value, default) in named.items() if value != default}
    config = {
        "d_model": width,
        "n_layer": backbone["num_layers"],
        "vocab_size": backbone["vocabulary_size"],
        "ssm_cfg": arguments,
        "rms_norm": backbone["norm"] == "rms",
        "residual_in_fp32": backbone["residual_dtype"] is not None,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
    }
    if not spec.tie_embeddings:
        config["tie_embeddings"] = False
    if spec.kind == "mamba2":  # the first version of the code lacks these
        arguments["layer"] = "Mamba2"
        config |= {"d_intermediate": 0, "attn_layer_idx": [], "attn_cfg": {}}
        config["tie_embeddings"] = spec.tie_embeddings
    return config
