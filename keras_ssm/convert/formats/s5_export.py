"""Models as flax variables of lindermanlab/S5."""

import numpy as np
from keras import ops

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
    one_hot = backbone.encoder == "one_hot"
    if not one_hot:
        check_supported(vocabulary_size=(backbone.vocabulary_size, (None,)))
    check_supported(
        encoder=(backbone.encoder, ("auto", "linear", "one_hot")),
        norm=(backbone.norm, ("batch", "layer")),
        final_norm=(backbone.final_norm, (None,)),
        gate=(backbone.gate, (None, "glu", "full_glu", "half_glu1", "half_glu2")),
        pooling=(model.pooling, ("mean", "last")),
    )
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
        "tokens_onehot": one_hot,
    }
    remarks = []
    _unlike(configuration, remarks, "activation", backbone.activation, "gelu_tanh")
    epsilon = 1e-5 if backbone.norm == "batch" else 1e-6
    _unlike(configuration, remarks, "norm_epsilon", backbone.norm_epsilon, epsilon)
    _unlike(configuration, remarks, "mask_inputs", backbone.mask_inputs, False)
    _unlike(configuration, remarks, "scale", getattr(model.preprocessor, "scale", 1.0), 1.0)
    if pair:
        _unlike(configuration, remarks, "head_activation", model.head_activation, "gelu_tanh")
        decoder = {"layer1": _dense(model.pair_dense), "layer2": _dense(model.head)}
    else:
        decoder = _dense(model.head)
    encoder, statistics = {"encoder": _encoder(backbone)}, {}
    for i, block in enumerate(backbone.blocks):
        encoder[f"layers_{i}"], moving = _block(block)
        if moving:
            statistics[f"layers_{i}"] = {"norm": moving}
    tree = {"params": {"encoder": encoder, "decoder": decoder}}
    if statistics:
        tree["batch_stats"] = {"encoder": statistics}
    return tree, configuration, remarks


def _unlike(configuration, remarks, name, value, official):
    """Notes what the official classes do otherwise; it stands in the configuration."""
    if value != official:
        configuration[name] = value
        remarks.append(
            f"The official classes have {name}={official!r}, this model {value!r}: allow for it, "
            "or their outputs differ from its."
        )


def _gate_name(gate):
    gate = "full_glu" if gate == "glu" else gate
    return next(name for name, ours in GATES.items() if ours == gate)


def _encoder(backbone):
    layer = backbone.encoder_layer
    kernel = layer.embeddings if hasattr(layer, "embeddings") else layer.kernel
    return {"kernel": _array(kernel), "bias": _array(layer.bias)}


def _dense(layer):
    return {"kernel": _array(layer.kernel), "bias": _array(layer.bias)}


def _block(block):
    """Parameters and running statistics of a layer."""
    mixer = block.mixer
    C = np.stack([_array(mixer.C_real), _array(mixer.C_imag)], axis=-1)
    names = ("C1", "C2") if len(C) == 2 else ("C",)
    if len(C) == 2 and mixer.c_init == "complex_normal":
        C, names = np.concatenate(C, axis=1)[None], ("C",)
    parameters = {
        "norm": {"scale": _array(block.norm.gamma), "bias": _array(block.norm.beta)},
        "seq": {
            "Lambda_re": _array(mixer.Lambda_real),
            "Lambda_im": _array(mixer.Lambda_imag),
            # With the `step_scale`, which the files do not have, within it.
            "log_step": (_array(mixer.log_dt) + np.log(_array(mixer.step_scale)))[:, None],
            "B": np.stack([_array(mixer.B_real), _array(mixer.B_imag)], axis=-1),
            "D": _array(mixer.D),
            **dict(zip(names, C, strict=True)),
        },
    }
    if block.gate in ("glu", "full_glu"):
        dense = _dense(block.output_dense)
        halves = {key: np.split(value, 2, axis=-1) for key, value in dense.items()}
        for number, name in enumerate(("out1", "out2")):
            parameters[name] = {key: value[number] for key, value in halves.items()}
    elif block.gate is not None:
        parameters["out2"] = _dense(block.output_dense)
    if block.norm_kind != "batch":
        return parameters, None
    moving = {"mean": _array(block.norm.moving_mean), "var": _array(block.norm.moving_variance)}
    return parameters, moving


def _array(x):
    return np.asarray(ops.convert_to_numpy(x)).astype("float32")
