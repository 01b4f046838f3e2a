"""Lightning checkpoints of HazyResearch/safari around H3, and bare state dicts."""

from keras_ssm.convert.formats import h3_layer
from keras_ssm.convert.formats.s4_lightning import (
    LAST_NORM,
    LAYER,
    NORM,
    layer_hyper_parameters,
    sequence_model,
    torch_lightning,
)
from keras_ssm.convert.formats.torch_arrays import put_dense, put_norm
from keras_ssm.convert.mapping import check_supported
from keras_ssm.layers import H3
from keras_ssm.models import SSMClassifier


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return torch_lightning(tensors) and h3_layer.is_h3(tensors, LAYER.format(0))


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper, first = layer_hyper_parameters(settings), LAYER.format(0)
    mixer = h3_layer.mixer(tensors, first, settings, hyper)

    def maps(stem, target):
        return h3_layer.weight_maps(tensors, stem, target)

    spec = sequence_model(
        tensors, settings, hyper, mixer, maps, outer=f"{first}ssm_k_", projects=False
    )
    spec.backbone["mask_inputs"] = settings.published("mask_inputs", True)
    length = hyper.get("l_max")
    if isinstance(length, int):
        spec.remarks.append(
            f"The kernels were trained {length} steps long. Here they are as long as the input: "
            f"set max_kernel_length={length} to cut them for longer inputs, as published."
        )
    if mixer.head_dim > 1:
        spec.remarks.append(h3_layer.HEADS_APART)
    return spec


def export(model, to):
    """Returns what a file holds, and remarks.

    Args:
        model: `SSMClassifier` over H3.
        to: str. `"h3-lightning"`.

    Returns:
        Tuple `(tensors, configuration, remarks)`: arrays by official names, the arguments of
        the official classes, and what a person should know.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    if not isinstance(mixer, H3) or not isinstance(model, SSMClassifier):
        raise ValueError(
            f"A model for {to!r} must be an SSMClassifier with a mixer H3. "
            f"Received: a {type(model).__name__} with a mixer {type(mixer).__name__}"
        )
    check_supported(
        norm=(backbone.norm, ("layer",)),
        norm_epsilon=(backbone.norm_epsilon, (1e-5,)),
        final_norm=(backbone.final_norm, ("layer" if backbone.prenorm else None,)),
        vocabulary_size=(backbone.vocabulary_size, (None,)),
        encoder=(backbone.encoder, ("auto", "linear")),
        pooling=(model.pooling, ("mean",)),
        bottleneck=(backbone.bottleneck, (None,)),
        intermediate_dim=(backbone.intermediate_dim, (None,)),
        gate=(backbone.gate, (None,)),
        activation=(backbone.activation, (None,)),
    )
    tensors, remarks = {}, []
    put_dense(tensors, "encoder", backbone.encoder_layer)
    for i, block in enumerate(backbone.blocks):
        layer = h3_layer.layer_tensors(block.mixer)
        tensors |= {LAYER.format(i) + name: value for name, value in layer.items()}
        put_norm(tensors, NORM.format(i), block.norm)
    if backbone.final_norm is not None:
        put_norm(tensors, LAST_NORM, backbone.last_norm)
    put_dense(tensors, "decoder.output_transform", model.head)
    layer = {
        "d_state": mixer.state_dim,
        "l_max": mixer.max_kernel_length,
        "head_dim": mixer.head_dim,
        "mode": "diag",
        "disc": mixer.discretization,
    }
    configuration = {
        "model": {
            "prenorm": backbone.prenorm,
            "dropout": backbone.dropout,
            "tie_dropout": backbone.tie_dropout,
            "layer": layer,
        },
        "decoder": {"mode": "pool"},
        "mask_inputs": backbone.mask_inputs,
    }
    if mixer.head_dim > 1:
        remarks.append(h3_layer.HEADS_APART)
    if mixer.shift_dim != mixer.state_dim:
        raise ValueError(
            "The published layer has as many taps as states: `shift_dim` must be `state_dim`. "
            f"Received: shift_dim={mixer.shift_dim}, state_dim={mixer.state_dim}"
        )
    scale = getattr(model.preprocessor, "scale", 1.0)
    if scale != 1.0:
        remarks.append(f"The model multiplies its inputs by {scale}; the file cannot say so.")
        configuration["scale"] = scale
    return tensors, configuration, remarks
