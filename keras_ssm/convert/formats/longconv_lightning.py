"""Lightning checkpoints of HazyResearch/safari around long convolutions, and bare state dicts."""

from keras_ssm.convert.formats import longconv_kernel
from keras_ssm.convert.formats.s4_lightning import (
    LAYER,
    layer_hyper_parameters,
    sequence_model,
    torch_lightning,
)


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return torch_lightning(tensors) and f"{LAYER.format(0)}kernel.kernel" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper, first = layer_hyper_parameters(settings), LAYER.format(0)
    mixer = longconv_kernel.mixer(tensors, first, settings, hyper)
    maps = longconv_kernel.weight_maps
    spec = sequence_model(tensors, settings, hyper, mixer, maps, outer=first)
    spec.backbone["mask_inputs"] = settings.published("mask_inputs", True)
    spec.remarks.append(longconv_kernel.SHORT_INPUTS.format(length=mixer.max_length))
    return spec
