"""Checkpoints of `example.py` of state-spaces/s4: `{"model": state_dict, "acc", "epoch"}`.

They hold no configuration. Whether norms precede the layers is not to be seen in the tensors.
"""

from keras_ssm.convert.formats import torch_model
from keras_ssm.convert.formats.s4_kernel import find_kernel, s4_mixer, s4_weight_maps
from keras_ssm.convert.mapping import ModelSpec

LAYER, NORM = "s4_layers.{}.", "norms.{}."


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return any(name.startswith("s4_layers.0.") for name in tensors.arrays)


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper = settings.hyper("layer_args", default={})
    mixer = s4_mixer(tensors, LAYER.format(0), settings, hyper)
    version, outer, _ = find_kernel(tensors, LAYER.format(0))
    features = settings.derive("hidden_dim", tensors.shape(f"{outer}D")[-1])
    layers = settings.derive("num_layers", tensors.count(LAYER))
    backbone = {
        "num_layers": layers,
        "hidden_dim": features,
        **torch_model.find_encoder(tensors, settings, "encoder.", features),
        "activation": torch_model.activation(settings, hyper),
        "gate": torch_model.find_gate(tensors, settings, LAYER.format(0), features, hyper),
        "norm": settings.derive("norm", torch_model.find_norm(tensors, NORM.format(0))),
        "prenorm": settings.ask("prenorm", settings.hyper("prenorm")),
        "dropout": settings.choose("dropout", 0.1, settings.hyper("dropout")),
        # Only later versions of the layer zero the padding of their inputs.
        "mask_inputs": settings.published("mask_inputs", version in ("v3", "v4")),
    }
    task, arguments, head = torch_model.find_head(
        tensors, settings, "decoder", "decoder.classifier", settings.hyper("pooling")
    )
    weight_maps = [*torch_model.encoder(tensors, "encoder.")]
    for i in range(layers):
        stem, target = LAYER.format(i), f"backbone.blocks.{i}"
        weight_maps += s4_weight_maps(tensors, stem, f"{target}.mixer", settings, hyper)
        weight_maps += torch_model.projection(tensors, stem, f"{target}.output_dense")
        weight_maps += torch_model.norm(tensors, NORM.format(i), f"{target}.norm")
    return ModelSpec(mixer, backbone, task, arguments, weight_maps + head, [])
