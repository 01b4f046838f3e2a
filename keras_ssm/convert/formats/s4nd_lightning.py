"""Lightning checkpoints of state-spaces/s4 around S4ND, and their bare state dicts."""

from keras_ssm.convert.formats.s4_kernel import check_supported, kernel_mixer, kernel_weight_maps
from keras_ssm.convert.formats.s4_lightning import (
    LAYER,
    layer_hyper_parameters,
    sequence_model,
    torch_lightning,
)
from keras_ssm.convert.mapping import WeightMap, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import S4ND
from keras_ssm.models import SSMImageClassifier

AXIS = "kernel.{}."


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return torch_lightning(tensors) and f"{LAYER.format(0)}{AXIS.format(0)}C" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper, first = layer_hyper_parameters(settings), LAYER.format(0)
    check_supported(hyper)
    if hyper.get("out_channels") is not None:
        raise ValueError(
            "A checkpoint trained with the option `out_channels` of the official layer cannot be "
            f"converted. Received: out_channels={hyper['out_channels']!r}"
        )
    if not any(name.startswith(f"{first}output_linear.") for name in tensors.arrays):
        hyper = {**hyper, "activation": "id"}  # `linear=True`, which leaves out both
    axes = settings.derive("axes", tensors.count(first + AXIS))
    rank = settings.choose("trank", 1, hyper.get("trank", UNSET))
    channels = tensors.shape(f"{first}D")[0]
    mixers = [
        kernel_mixer(
            tensors, "v4", f"{first}{AXIS.format(i)}", rank * channels, settings, hyper, "exp"
        )
        for i in range(axes)
    ]
    bidirectional = mixers[0].bidirectional
    arguments = {
        "mixer": [_of_axis(mixer) for mixer in mixers],
        "axes": axes,
        "rank": rank,
        "channels": settings.derive("channels", channels),
        "bidirectional": settings.derive("bidirectional", bidirectional),
    }

    def weight_maps(stem, target):
        yield WeightMap(f"{target}.D", (f"{stem}D",), same)
        for i in range(axes):
            place = f"{target}.axis_layers.{i}"
            kernel = f"{stem}{AXIS.format(i)}"
            yield from kernel_weight_maps(tensors, "v4", kernel, place, settings, hyper)

    spec = sequence_model(tensors, settings, hyper, S4ND(**arguments), weight_maps, outer=first)
    return spec._replace(task=SSMImageClassifier)


def _of_axis(mixer):
    """The mixer without what `S4ND` says of its axes."""
    return type(mixer).from_config({**mixer.get_config(), "channels": 1, "bidirectional": False})
