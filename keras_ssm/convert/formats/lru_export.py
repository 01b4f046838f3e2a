"""Models as flax variables of NicolasZucchet/minimal-LRU."""

import numpy as np

from keras_ssm.convert.formats import flax_export
from keras_ssm.convert.formats.lru_flax import LOG_PROBABILITIES, POOLINGS, WEIGHTS
from keras_ssm.convert.mapping import check_supported
from keras_ssm.layers import LRU
from keras_ssm.models import SSMClassifier


def export(model, to):
    """Returns what a flax file holds, and remarks.

    Args:
        model: `SSMClassifier` over LRU.
        to: str. `"lru-flax"`.

    Returns:
        Tuple `(tree, configuration, remarks)`: the nested dict of `params` and `batch_stats`,
        the arguments of the official classes, and what a person should know.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    if not isinstance(mixer, LRU) or not isinstance(model, SSMClassifier):
        raise ValueError(
            f"A model for {to!r} must be an SSMClassifier with a mixer LRU. "
            f"Received: a {type(model).__name__} with a mixer {type(mixer).__name__}"
        )
    flax_export.check_backbone(backbone, gates=("glu", "full_glu"))
    check_supported(
        pooling=(model.pooling, tuple(POOLINGS.values())),
        bidirectional=(mixer.bidirectional, (False,)),
    )
    configuration = {
        "d_hidden": mixer.state_dim,
        "d_model": backbone.hidden_dim,
        "d_output": model.num_classes,
        "in_dim": backbone.vocabulary_size or backbone.input_dim,
        "encoder": "one_hot" if backbone.encoder == "one_hot" else "linear",
        "n_layers": backbone.num_layers,
        "norm": backbone.norm,
        "p_dropout": backbone.dropout,
        "pooling": next(k for k, v in POOLINGS.items() if v == model.pooling),
        "prenorm": backbone.prenorm,
        "r_min": mixer.r_min,
        "r_max": mixer.r_max,
        "max_phase": mixer.max_phase,
    }
    remarks = flax_export.differences(model, configuration, momentum=0.99)
    decoder = flax_export.dense(model.head)
    tree = flax_export.tree(backbone, decoder, _parameters, "normalization")
    return tree, configuration, [*remarks, LOG_PROBABILITIES]


def _parameters(mixer):
    """The official parameters, with the `step_scale`, which the files do not have, within."""
    weights = {theirs: flax_export.array(getattr(mixer, ours)) for theirs, ours in WEIGHTS.items()}
    scale = flax_export.array(mixer.step_scale)
    if scale != 1:
        log_lambda = -np.exp(weights["nu_log"]) + 1j * np.exp(weights["theta_log"])
        change = np.log(np.abs(np.expm1(scale * log_lambda)) / np.abs(np.expm1(log_lambda)))
        weights["gamma_log"] = weights["gamma_log"] + change
        weights["nu_log"] = weights["nu_log"] + np.log(scale)
        weights["theta_log"] = weights["theta_log"] + np.log(scale)
    return weights
