"""Models as flax variables of lindermanlab/S5."""

import numpy as np

from keras_ssm.convert.formats import flax_export
from keras_ssm.convert.formats.flax_export import array
from keras_ssm.convert.formats.s5_flax import GATES, POOLINGS
from keras_ssm.convert.mapping import check_supported
from keras_ssm.layers import S5
from keras_ssm.models import SSMPairClassifier


def export(model, to):
    """Returns what a flax file holds, and remarks.

    Args:
        model: `SSMClassifier` or `SSMPairClassifier` over S5.
        to: str. `"s5-flax"`.

    Returns:
        Tuple `(tree, configuration, remarks)`: the nested dict of `params` and `batch_stats`,
        the arguments of the official classes, and what a person should know.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    if not isinstance(mixer, S5):
        raise ValueError(
            f"A model for {to!r} must have a mixer S5 (or S5PTD). "
            f"Received: mixer {type(mixer).__name__}"
        )
    gates = (None, "glu", "full_glu", "half_glu1", "half_glu2")
    flax_export.check_backbone(backbone, gates)
    check_supported(pooling=(model.pooling, ("mean", "last")))
    pair = isinstance(model, SSMPairClassifier)
    configuration = {
        "cls": "RetrievalModel" if pair else "BatchClassificationModel",
        "activation_fn": _gate_name(backbone.gate),
        "batchnorm": backbone.norm == "batch",
        "bidirectional": mixer.bidirectional,
        "blocks": mixer.blocks,
        "bn_momentum": backbone.norm_momentum,
        "C_init": mixer.c_init,
        "clip_eigs": mixer.clip_eigs,
        "conj_sym": mixer.conj_sym,
        "d_model": backbone.hidden_dim,
        "discretization": mixer.discretization,
        "dropout": backbone.dropout,
        "in_dim": backbone.vocabulary_size or backbone.input_dim,
        "mode": next(k for k, v in POOLINGS.items() if v == model.pooling),
        "n_classes": model.num_classes,
        "n_layers": backbone.num_layers,
        "prenorm": backbone.prenorm,
        "ssm_size_base": mixer.state_dim,
        "tokens_onehot": backbone.encoder == "one_hot",
    }
    remarks = flax_export.differences(model, configuration)
    decoder = flax_export.dense(model.head)
    if pair:
        decoder = {"layer1": flax_export.dense(model.pair_dense), "layer2": decoder}
    return flax_export.tree(backbone, decoder, _parameters, "norm"), configuration, remarks


def _gate_name(gate):
    gate = "full_glu" if gate == "glu" else gate
    return next(name for name, keras_gate in GATES.items() if keras_gate == gate)


def _parameters(mixer):
    C = np.stack([array(mixer.C_real), array(mixer.C_imag)], axis=-1)
    names = ("C1", "C2") if len(C) == 2 else ("C",)
    if len(C) == 2 and mixer.c_init == "complex_normal":
        C, names = np.concatenate(C, axis=1)[None], ("C",)
    return {
        "Lambda_re": array(mixer.Lambda_real),
        "Lambda_im": array(mixer.Lambda_imag),
        # With the `step_scale`, which the files do not have, within it.
        "log_step": (array(mixer.log_dt) + np.log(array(mixer.step_scale)))[:, None],
        "B": np.stack([array(mixer.B_real), array(mixer.B_imag)], axis=-1),
        "D": array(mixer.D),
        **dict(zip(names, C, strict=True)),
    }
