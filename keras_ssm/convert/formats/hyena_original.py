"""HyenaDNA in the format of hyena-dna: `config.json` with a `layer`, and `weights.ckpt`."""

from keras_ssm.convert.formats import hyena_weights
from keras_ssm.convert.formats.hyena_hf import EPSILON, ORDER, SHIFT, TAPS, padded, rate, remarks_of
from keras_ssm.convert.formats.published_fields import (
    UNSET,
    Fields,
    PublishedSpec,
    count,
    count_or_zero,
    flag,
    names,
    number,
)
from keras_ssm.convert.mapping import check_supported

recognises, read = hyena_weights.recognises, hyena_weights.refuse_alone

CONFIG = "config.json"

# Arguments of training and speed. `local_order` is read by nothing.
HARMLESS = (
    *("fused_mlp", "fused_dropout_add_ln", "checkpoint_mixer", "checkpoint_mlp", "track_norms"),
    *("return_hidden_state", "initializer_cfg", "attn_cfg", "use_head", "n_classes"),
)
HARMLESS_OF_LAYER = (
    *("lr", "wd", "lr_pos_emb", "modulation_lr", "local_order", "filter_dropout", "d_model"),
    *("fused_bias_fc", "fused_fft_conv", "jit_filter", "return_state", "channels"),
)

# Options that change the arithmetic, with their only values here.
FIXED = {
    "_name_": ("hyena",),
    "order": (ORDER,),
    "num_heads": (1,),
    "inner_factor": (1,),
    "num_blocks": (1,),
    "outer_mixing": (False,),
    "post_order_ffn": (False,),
    "activation": ("id", None),
    "filter_cls": ("hyena-filter",),
    "modulate": (True,),
    "normalized": (False,),
    "bias": (True,),
    "fast_decay_pct": (0.3,),
    "slow_decay_pct": (1.5,),
    "target": (1e-2,),
}

SHIFTED = (
    f"The classes that were published for these files add {SHIFT} to the decay of the filters. The "
    "code that trained them has another default, 0. Where the file does not say `shift`, it is "
    f"{SHIFT} here."
)


def number_or_zero(value):
    """a number of at least 0"""
    return value == 0 or number(value)


def read_config(config: dict, source: str) -> PublishedSpec:
    """Reads a `config.json`.

    Args:
        config: dict.
        source: str. What messages call it.

    Returns:
        `PublishedSpec`.

    Raises:
        ValueError: for fields of other kinds, that have no counterpart here, or are not known.
    """
    fields = Fields(config, source)
    attention = config.get("attn_layer_idx") or []
    fields.require("attn_layer_idx", ([], None), f"layers {attention} are attention")
    width = fields.take("d_model", UNSET, count, "hidden_dim")
    tokens = fields.take("vocab_size", UNSET, count)
    rows = padded(tokens, fields.take("pad_vocab_size_multiple", 1, count))
    fields.rows["vocabulary_size"] = rows, "file", True
    in_float32 = fields.take("residual_in_fp32", False, flag)
    backbone = {
        "num_layers": fields.take("n_layer", UNSET, count, "num_layers"),
        "hidden_dim": width,
        "vocabulary_size": rows,
        "norm": "layer",
        "norm_epsilon": fields.take("layer_norm_epsilon", EPSILON, number, "norm_epsilon"),
        "residual_dtype": "float32" if in_float32 else None,
        "intermediate_dim": fields.take("d_inner", UNSET, count, "intermediate_dim"),
        "encoder_dropout": float(fields.take("embed_dropout", 0.1, rate, "encoder_dropout")),
        "dropout": float(fields.take("resid_dropout", 0.0, rate, "dropout")),
        "tie_dropout": False,
    }
    fields.require("max_position_embeddings", (0,), "there are no position embeddings")
    inner = Fields(fields.take("layer", UNSET, names), f"`layer` of {source}")
    fields.check_all_read(HARMLESS)
    mixer = {
        "max_length": inner.take("l_max", UNSET, count, "max_length"),
        "order": ORDER,
        "filter_width": inner.take("filter_order", 64, count, "filter_width"),
        "filter_depth": inner.take("num_inner_mlps", 2, count_or_zero, "filter_depth"),
        "emb_dim": inner.take("emb_dim", 3, count, "emb_dim"),
        "frequency": float(inner.take("w", 1, number, "frequency")),
        "shift": float(inner.take("shift", SHIFT, number_or_zero, "shift")),
        "conv_width": inner.take("short_filter_order", TAPS, count, "conv_width"),
        "dropout": float(inner.take("dropout", 0.0, rate)),
    }
    for name, allowed in FIXED.items():
        inner.require(name, allowed, "the layer has no such option")
    inner.check_all_read(HARMLESS_OF_LAYER)
    remarks = remarks_of(tokens, rows) + ([] if "shift" in inner.config else [SHIFTED])
    return PublishedSpec("hyena", mixer, backbone, True, {**fields.rows, **inner.rows}, remarks)


def write_config(spec: PublishedSpec) -> dict:
    """Returns a model's `config.json`.

    Args:
        spec: `PublishedSpec`.

    Raises:
        ValueError: for a model that the published classes do not cover.
    """
    mixer, backbone = spec.mixer, spec.backbone
    check_supported(
        order=(mixer["order"], (ORDER,)),
        conv_width=(mixer["conv_width"], (TAPS,)),
        tie_embeddings=(spec.tie_embeddings, (True,)),
    )
    return {
        "d_inner": backbone["intermediate_dim"],
        "d_model": backbone["hidden_dim"],
        "embed_dropout": backbone["encoder_dropout"],
        "layer": {
            "_name_": "hyena",
            "dropout": mixer["dropout"],
            "emb_dim": mixer["emb_dim"],
            "filter_order": mixer["filter_width"],
            "l_max": mixer["max_length"],
            "modulate": True,
            "num_inner_mlps": mixer["filter_depth"],
            "order": ORDER,
            "shift": mixer["shift"],
            "w": mixer["frequency"],
        },
        "layer_norm_epsilon": backbone["norm_epsilon"],
        "n_layer": backbone["num_layers"],
        "pad_vocab_size_multiple": 1,
        "resid_dropout": backbone["dropout"],
        "residual_in_fp32": backbone["residual_dtype"] is not None,
        "vocab_size": backbone["vocabulary_size"],
    }
