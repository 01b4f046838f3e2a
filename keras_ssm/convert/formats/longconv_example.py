"""Checkpoints of `standalone_cifar.py` of HazyResearch/safari: `{"model": state_dict, ...}`.

They hold no configuration. Whether norms precede the layers, and the threshold of the kernels, are
not to be seen in the tensors.
"""

from keras_ssm.convert.formats import longconv_kernel, torch_model
from keras_ssm.convert.mapping import ModelSpec, WeightMap, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import LongConv

LAYER, NORM = "conv_layers.{}.", "norms.{}."

BOTH_WAYS = (
    "The standalone layer reads both ways, although it is said to be causal: half of its 2 L "
    "entries are negative lags."
)


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return f"{LAYER.format(0)}kernel" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    first = LAYER.format(0)
    channels, features, entries = tensors.shape(f"{first}kernel")
    arguments = {
        "max_length": settings.derive("max_length", entries // 2),
        "channels": settings.derive("channels", channels),
        "bidirectional": settings.derive("bidirectional", True),
        "squash": longconv_kernel.find_squash(settings, settings.hyper("kernel_lam")),
        "kernel_dropout": settings.choose("kernel_dropout", 0.0, settings.hyper("kernel_dropout")),
    }
    mixer = LongConv(**settings.arguments(LongConv, arguments))
    layers = settings.derive("num_layers", tensors.count(LAYER))
    backbone = {
        "num_layers": layers,
        "hidden_dim": settings.derive("hidden_dim", features),
        **torch_model.find_encoder(tensors, settings, "encoder.", features),
        "activation": settings.published("activation", "gelu"),
        "gate": torch_model.find_gate(tensors, settings, first, features, {}),
        "norm": settings.derive("norm", torch_model.find_norm(tensors, NORM.format(0))),
        "prenorm": settings.ask("prenorm", settings.hyper("prenorm")),
        "dropout": settings.choose("dropout", 0.1, settings.hyper("dropout")),
        "mask_inputs": settings.published("mask_inputs", False),
    }
    task, arguments, head = torch_model.find_head(
        tensors, settings, "decoder", "decoder.classifier", UNSET
    )
    maps = [*torch_model.encoder(tensors, "encoder.")]
    for i in range(layers):
        stem, target = LAYER.format(i), f"backbone.blocks.{i}"
        kernel = longconv_kernel.two_sided
        maps.append(WeightMap(f"{target}.mixer.D", (f"{stem}D",), same))
        note = "past and future apart"
        maps.append(WeightMap(f"{target}.mixer.entries", (f"{stem}kernel",), kernel, note))
        maps += torch_model.projection(tensors, stem, f"{target}.output_dense")
        maps += torch_model.norm(tensors, NORM.format(i), f"{target}.norm")
    remarks = [longconv_kernel.SHORT_INPUTS.format(length=entries // 2), BOTH_WAYS]
    return ModelSpec(mixer, backbone, task, arguments, maps + head, remarks)
