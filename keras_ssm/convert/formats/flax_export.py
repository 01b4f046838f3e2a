"""What checkpoints of flax share when they are written."""

import numpy as np
from keras import ops

from keras_ssm.convert.mapping import check_supported


def check_backbone(backbone, gates):
    """Raises a `ValueError` for a backbone that the official classes do not cover."""
    if backbone.encoder != "one_hot":
        check_supported(vocabulary_size=(backbone.vocabulary_size, (None,)))
    check_supported(
        encoder=(backbone.encoder, ("auto", "linear", "one_hot")),
        norm=(backbone.norm, ("batch", "layer")),
        final_norm=(backbone.final_norm, (None,)),
        gate=(backbone.gate, gates),
        bottleneck=(backbone.bottleneck, (None,)),
        intermediate_dim=(backbone.intermediate_dim, (None,)),
    )


def differences(model, configuration, momentum=None):
    """Notes what the official classes do otherwise in the configuration.

    Args:
        model: the task model.
        configuration: dict, to which such settings are added.
        momentum: float or `None`. The one momentum of a batch norm, where it is fixed.

    Returns:
        List of str, remarks.
    """
    backbone, remarks = model.backbone, []
    official = {
        "activation": (backbone.activation, "gelu_tanh"),
        "norm_epsilon": (backbone.norm_epsilon, 1e-5 if backbone.norm == "batch" else 1e-6),
        "mask_inputs": (backbone.mask_inputs, False),
        "scale": (getattr(model.preprocessor, "scale", 1.0), 1.0),
    }
    if hasattr(model, "pair_dense"):
        official["head_activation"] = model.head_activation, "gelu_tanh"
    if momentum is not None and backbone.norm == "batch":
        official["norm_momentum"] = backbone.norm_momentum, momentum
    for name, (value, theirs) in official.items():
        if value != theirs:
            configuration[name] = value
            remarks.append(
                f"The official classes have {name}={theirs!r}, this model {value!r}: allow for "
                "it, or their outputs differ from its."
            )
    return remarks


def tree(backbone, decoder, mixer, norm):
    """The nested dict of `params` and `batch_stats` of a model.

    Args:
        backbone: `SSMBackbone`.
        decoder: dict. Parameters of the head.
        mixer: function of a mixer, that returns its parameters.
        norm: str. The official name of the norm of a block.
    """
    encoder, statistics = {"encoder": _encoder(backbone)}, {}
    for i, block in enumerate(backbone.blocks):
        scale = {"scale": array(block.norm.gamma), "bias": array(block.norm.beta)}
        encoder[f"layers_{i}"] = {norm: scale, "seq": mixer(block.mixer), **_gate(block)}
        if block.norm_kind == "batch":
            mean, variance = block.norm.moving_mean, block.norm.moving_variance
            statistics[f"layers_{i}"] = {norm: {"mean": array(mean), "var": array(variance)}}
    variables = {"params": {"encoder": encoder, "decoder": decoder}}
    return {**variables, "batch_stats": {"encoder": statistics}} if statistics else variables


def dense(layer):
    """Parameters of a linear layer."""
    return {"kernel": array(layer.kernel), "bias": array(layer.bias)}


def array(x):
    """A weight as float32 of NumPy."""
    return np.asarray(ops.convert_to_numpy(x)).astype("float32")


def _encoder(backbone):
    layer = backbone.encoder_layer
    kernel = layer.embeddings if hasattr(layer, "embeddings") else layer.kernel
    return {"kernel": array(kernel), "bias": array(layer.bias)}


def _gate(block):
    if block.gate is None:
        return {}
    projection = dense(block.output_dense)
    if block.gate not in ("glu", "full_glu"):
        return {"out2": projection}
    halves = {key: np.split(value, 2, axis=-1) for key, value in projection.items()}
    names = ("out1", "out2")
    return {name: {key: halves[key][i] for key in halves} for i, name in enumerate(names)}
