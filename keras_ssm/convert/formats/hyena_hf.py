"""HyenaDNA in the format of transformers: `config.json`, and code that is not run."""

import math

from keras_ssm.convert.formats import hyena_weights
from keras_ssm.convert.formats.published_fields import (
    TRANSFORMERS,
    Fields,
    PublishedSpec,
    count,
    count_or_zero,
    flag,
    number,
)
from keras_ssm.convert.mapping import check_supported

recognises, read = hyena_weights.recognises, hyena_weights.refuse_alone

CONFIG = "config.json"

# What every published class of this format has, without a field for it.
EPSILON, SHIFT, TAPS, ORDER = 1e-5, 0.05, 3, 2

# Where the published code lies, and what it does not read.
HARMLESS = (*TRANSFORMERS, "auto_map", "use_bias", "hyena_filter_dropout")

# Where transformers finds the classes of a directory that holds none.
CODE = "LongSafari/hyenadna-tiny-1k-seqlen-hf"


def rate(value):
    """a number in [0, 1)"""
    return value == 0 or (number(value) and value < 1)


def padded(tokens: int, multiple: int) -> int:
    """Rows of the table for so many tokens."""
    return math.ceil(tokens / multiple) * multiple


def remarks_of(tokens: int, rows: int) -> list[str]:
    """What a person should know of the rows of the table."""
    if rows == tokens:
        return []
    return [
        f"The table has {rows} rows for {tokens} tokens: the last {rows - tokens} stand for none, "
        "and are logits all the same, as published."
    ]


def read_config(config: dict, source: str) -> PublishedSpec:
    """Reads a `config.json`.

    Args:
        config: dict.
        source: str. What messages call it.

    Returns:
        `PublishedSpec`.

    Raises:
        ValueError: for fields of other kinds, that contradict each other, or that are not known.
    """
    fields = Fields(config, source)
    width = fields.take("d_model", 256, count, "hidden_dim")
    tokens = fields.take("vocab_size", 12, count)
    rows = padded(tokens, fields.take("pad_vocab_size_multiple", 8, count))
    inner = 4 * width
    if config.get("d_inner") is not None:
        inner = fields.take("d_inner", inner, count)
    fields.require("d_inner", (None, inner), "it must be a positive integer")
    fields.rows |= {"vocabulary_size": (rows, "file", True)}
    fields.rows |= {"intermediate_dim": (inner, "file", True)}
    backbone = {
        "num_layers": fields.take("n_layer", 12, count, "num_layers"),
        "hidden_dim": width,
        "vocabulary_size": rows,
        "norm": "layer",
        "norm_epsilon": EPSILON,
        "residual_dtype": "float32",
        "intermediate_dim": inner,
        "encoder_dropout": float(fields.take("embed_dropout", 0.1, rate, "encoder_dropout")),
        "dropout": 0.0,
        "tie_dropout": False,
    }
    mixer = {
        "max_length": fields.take("max_seq_len", 1024, count, "max_length"),
        "order": ORDER,
        "filter_width": fields.take("filter_order", 64, count, "filter_width"),
        "filter_depth": fields.take("num_inner_mlps", 2, count_or_zero, "filter_depth"),
        "emb_dim": fields.take("emb_dim", 3, count, "emb_dim"),
        "frequency": float(fields.take("activation_freq", 1, number, "frequency")),
        "shift": SHIFT,
        "conv_width": TAPS,
        "dropout": float(fields.take("hyena_dropout", 0.0, rate)),
    }
    fields.require("hyena_order", (ORDER,), "the published classes cannot run another")
    fields.require("short_filter_order", (TAPS,), "others are not causal in the published classes")
    fields.require("train_freq", (True,), "such files do not hold the factors in the sines")
    fields.require("layer_norm_epsilon", (EPSILON,), f"norms of the blocks have {EPSILON:g}")
    tied = fields.take("tie_word_embeddings", True, flag, "tie_embeddings")
    fields.check_all_read(HARMLESS)
    return PublishedSpec("hyena", mixer, backbone, tied, fields.rows, remarks_of(tokens, rows))


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
        shift=(mixer["shift"], (SHIFT,)),
        norm_epsilon=(backbone["norm_epsilon"], (EPSILON,)),
        residual_dtype=(backbone["residual_dtype"], ("float32",)),
        dropout=(backbone["dropout"], (0, 0.0)),
    )
    classes = {"AutoConfig": "configuration_hyena.HyenaConfig"}
    classes["AutoModelForCausalLM"] = "modeling_hyena.HyenaDNAForCausalLM"
    return {
        "architectures": ["HyenaDNAForCausalLM"],
        "auto_map": {name: f"{CODE}--{place}" for name, place in classes.items()},
        "activation_freq": mixer["frequency"],
        "d_inner": backbone["intermediate_dim"],
        "d_model": backbone["hidden_dim"],
        "emb_dim": mixer["emb_dim"],
        "embed_dropout": backbone["encoder_dropout"],
        "filter_order": mixer["filter_width"],
        "hyena_dropout": mixer["dropout"],
        "hyena_filter_dropout": 0.0,
        "hyena_order": ORDER,
        "layer_norm_epsilon": EPSILON,
        "max_seq_len": mixer["max_length"],
        "model_type": "hyenadna",
        "n_layer": backbone["num_layers"],
        "num_inner_mlps": mixer["filter_depth"],
        "pad_vocab_size_multiple": 1,
        "short_filter_order": TAPS,
        "tie_word_embeddings": spec.tie_embeddings,
        "train_freq": True,
        "use_bias": True,
        "vocab_size": backbone["vocabulary_size"],
    }
