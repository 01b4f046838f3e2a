"""Lightning checkpoints of state-spaces/s4, and their bare state dicts.

`SequenceModel` between an encoder and a decoder; the hyper-parameters are its configuration.
"""

from keras_ssm.convert.formats import torch_model
from keras_ssm.convert.formats.s4_kernel import find_kernel, s4_mixer, s4_weight_maps
from keras_ssm.convert.mapping import ModelSpec
from keras_ssm.convert.settings import UNSET

LAYER, NORM = "model.layers.{}.layer.", "model.layers.{}.norm.norm."
LAST_NORM = "model.norm.norm."

POOLINGS = {"pool": "mean", "last": "last"}

# Options of the official model that change its arithmetic and have no counterpart here.
WITHOUT_COUNTERPART = {"residual": ("R", "residual"), "bidirectional": (False,)}


def recognises(tensors):
    """Whether the tensors are named as in this format, around a layer of S4 or S4D."""
    return torch_lightning(tensors) and find_kernel(tensors, LAYER.format(0))[0] != "dss"


def torch_lightning(tensors):
    """Whether the tensors are those of a `SequenceModel`."""
    return any(name.startswith("model.layers.0.layer.") for name in tensors.arrays)


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper = layer_hyper_parameters(settings)
    mixer = s4_mixer(tensors, LAYER.format(0), settings, hyper)
    version = find_kernel(tensors, LAYER.format(0))[0]

    def mixer_weight_maps(stem, target):
        return s4_weight_maps(tensors, stem, target, settings, hyper)

    spec = sequence_model(tensors, settings, hyper, mixer, mixer_weight_maps)
    # Only later versions of the layer zero the padding of their inputs.
    masked = settings.published("mask_inputs", version in ("v3", "v4"))
    spec.backbone["mask_inputs"] = masked
    length = hyper.get("l_max")
    if isinstance(length, int):
        spec.remarks.append(
            f"The kernels were trained {length} steps long. Here they are as long as the input: "
            f"set max_kernel_length={length} to cut them for longer inputs, as published."
        )
    return spec


def layer_hyper_parameters(settings):
    """The hyper-parameters of the layer, official names."""
    hyper = settings.hyper("model", "layer", default={})
    hyper = hyper if isinstance(hyper, dict) else {}
    values = {name: settings.hyper("model", "layer", name) for name in hyper}
    return {name: value for name, value in values.items() if value is not UNSET}


def sequence_model(tensors, settings, hyper, mixer, mixer_weight_maps, outer=None, projects=True):
    """The `ModelSpec` of a `SequenceModel` around a mixer.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
        hyper: dict. Hyper-parameters of the layer.
        mixer: the mixer.
        mixer_weight_maps: callable. Maps the prefix of a layer and the path of its mixer to
            weight maps.
        outer: str or `None`. Prefix of D of the first layer, where it is none of S4 or DSS.
        projects: bool. Whether an activation and a projection follow the mixer in its layer.
    """
    for name, allowed in WITHOUT_COUNTERPART.items():
        value = settings.hyper("model", name)
        if value is not UNSET and value not in allowed:
            raise ValueError(
                f"A checkpoint trained with the option `{name}` of the official model cannot be "
                f"converted. Received: {name}={value!r}"
            )
    first = LAYER.format(0)
    outer = find_kernel(tensors, first)[1] if outer is None else outer
    features = settings.derive("hidden_dim", tensors.shape(f"{outer}D")[-1])
    layers = settings.derive("num_layers", tensors.count(LAYER))
    # Version 4 numbers encoder and decoder, earlier ones do not where there is only one.
    encoder = "encoder.0." if "encoder.0.weight" in tensors else "encoder."
    last_norm = torch_model.find_norm(tensors, LAST_NORM)
    norm = torch_model.find_norm(tensors, NORM.format(0))
    # The model has a last norm if, and only if, norms precede the layers.
    prenorm = settings.derive("prenorm", last_norm is not None) if norm else False
    backbone = {
        "num_layers": layers,
        "hidden_dim": features,
        **torch_model.find_encoder(tensors, settings, encoder, features),
        **_after_mixer(tensors, settings, first, features, hyper, projects),
        "norm": settings.derive("norm", norm),
        "prenorm": prenorm,
        "final_norm": settings.derive("final_norm", last_norm),
        "dropout": settings.choose("dropout", 0.0, settings.hyper("model", "dropout")),
        "tie_dropout": settings.choose("tie_dropout", True, settings.hyper("model", "tie_dropout")),
    }
    decoder = settings.hyper("decoder")
    decoder = decoder[0] if isinstance(decoder, list) and decoder else decoder
    mode = UNSET
    if isinstance(decoder, dict):
        mode = decoder.get("mode", "last")
    if decoder == "sequence":
        mode = "last"
    pooling = torch_model.translate(POOLINGS, "mode", mode)
    stem = "decoder.0" if tensors.count("decoder.{}.") else "decoder"
    task, arguments, head = torch_model.find_head(
        tensors,
        settings,
        f"{stem}.output_transform",
        f"{stem}.retrieval.classifier",
        pooling,
    )
    weight_maps = [*torch_model.encoder(tensors, encoder)]
    for i in range(layers):
        stem, target = LAYER.format(i), f"backbone.blocks.{i}"
        weight_maps += mixer_weight_maps(stem, f"{target}.mixer")
        if projects:
            weight_maps += torch_model.projection(tensors, stem, f"{target}.output_dense")
        if norm:
            weight_maps += torch_model.norm(tensors, NORM.format(i), f"{target}.norm")
    if last_norm:
        weight_maps += torch_model.norm(tensors, LAST_NORM, "backbone.last_norm")
    return ModelSpec(mixer, backbone, task, arguments, weight_maps + head, [])


def _after_mixer(tensors, settings, stem, features, hyper, projects):
    """The arguments of `SSMBackbone` that say what follows the mixer."""
    if not projects:
        return {
            "activation": settings.published("activation", None),
            "gate": settings.published("gate", None),
        }
    return {
        "activation": torch_model.activation(settings, hyper),
        "gate": torch_model.find_gate(tensors, settings, stem, features, hyper),
    }
