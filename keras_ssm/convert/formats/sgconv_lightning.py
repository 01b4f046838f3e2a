"""Lightning checkpoints and state dicts around the `GConv` of ctlllll/SGConv."""

import numpy as np

from keras_ssm.convert.formats.longconv_kernel import check_supported
from keras_ssm.convert.formats.s4_lightning import (
    LAYER,
    layer_hyper_parameters,
    sequence_model,
    torch_lightning,
)
from keras_ssm.convert.mapping import WeightMap, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import SGConv

WITHOUT_COUNTERPART = {
    "hyper_act": (None,),
    "shift": (False, None),
    "ln": (False, None),
    "weight_norm": (False, None),
}


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return torch_lightning(tensors) and f"{LAYER.format(0)}kernel_list.0" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper, first = layer_hyper_parameters(settings), LAYER.format(0)
    check_supported(hyper, WITHOUT_COUNTERPART)
    mixer = _mixer(tensors, first, settings, hyper)
    if tensors.first(f"{first}output_linear.0.weight", f"{first}output_linear.weight") is None:
        hyper = {**hyper, "activation": "id"}  # the choice of `linear=True`

    def weight_maps(stem, target):
        return _weight_maps(tensors, stem, target, mixer)

    spec = sequence_model(tensors, settings, hyper, mixer, weight_maps, outer=first)
    spec.backbone["mask_inputs"] = settings.published("mask_inputs", False)
    return spec


def _mixer(tensors, stem, settings, hyper):
    planes, features, size = tensors.shape(f"{stem}kernel_list.0")
    channels, scales = tensors.shape(f"{stem}D")[0], tensors.count(f"{stem}kernel_list.{{}}")
    mode, length = hyper.get("mode", "cat_randn"), hyper.get("l_max", UNSET)
    learnable = f"{stem}decay" in tensors
    start = hyper.get("init_scale", 0)
    arguments = {
        "kernel_dim": settings.derive("kernel_dim", size),
        "max_length": settings.choose("max_length", size * 2 ** (scales - 1 + start), length),
        "num_scales": settings.derive("num_scales", scales),
        "channels": settings.derive("channels", channels),
        "bidirectional": settings.derive("bidirectional", planes == 2 * channels),
        "learnable_decay": settings.derive("learnable_decay", learnable),
        "interpolation": _option(settings, "interpolation", hyper, "nearest" in mode, "nearest"),
        "composition": _option(settings, "composition", hyper, "sum" in mode, "sum"),
    }
    if learnable:  # drawn between the two, and replaced
        arguments["decay_min"] = settings.choose("decay_min", 2.0, hyper.get("decay_min", UNSET))
        arguments["decay_max"] = settings.choose("decay_max", 2.0, hyper.get("decay_max", UNSET))
    else:
        decay = tensors[f"{stem}multiplier"].reshape(-1)
        if not np.allclose(decay, np.linspace(decay[0], decay[-1], features), rtol=1e-6):
            raise ValueError(
                "`multiplier` must rise evenly from feature to feature. "
                f"Received: {decay.tolist()[:8]}"
            )
        arguments["decay_min"] = settings.derive("decay_min", float(decay[0]))
        arguments["decay_max"] = settings.derive("decay_max", float(decay[-1]))
    return SGConv(**settings.arguments(SGConv, arguments))


def _option(settings, name, hyper, is_other, other):
    """How pieces are stretched or put together: the default unless the mode says otherwise."""
    default = {"interpolation": "linear", "composition": "concat"}[name]
    file = (other if is_other else default) if "mode" in hyper else UNSET
    return settings.choose(name, default, file)


def _weight_maps(tensors, stem, target, mixer):
    names = tuple(f"{stem}kernel_list.{i}" for i in range(mixer.scales))
    tensors.drop(f"{stem}multiplier", "a buffer, which the decays give")
    yield WeightMap(f"{target}.D", (f"{stem}D",), same)
    yield WeightMap(f"{target}.pieces", names, _stacked, "all scales in one")
    decay = (f"{stem}decay",) if mixer.learnable_decay else ()
    if decay:
        yield WeightMap(f"{target}.decay", decay, same)
    initialised = f"{stem}kernel_norm_initialized"
    trained = initialised not in tensors or bool(tensors[initialised])
    shape = tensors.shape(names[0])[:2]
    if trained:

        def norm(x):
            return np.broadcast_to(x[..., 0], shape)

        yield WeightMap(f"{target}.kernel_norm", (f"{stem}kernel_norm",), norm)
        return
    tensors.drop(f"{stem}kernel_norm", "not computed yet")

    def first_norm(*arrays):
        """What the first forward pass of the official code would store."""
        pieces = np.stack(arrays[: mixer.scales])
        K = mixer.composed(pieces, arrays[-1] if decay else None, np)
        return np.linalg.norm(K, axis=-1)

    note = "of the kernel as it is"
    yield WeightMap(f"{target}.kernel_norm", names + decay, first_norm, note, linear=False)


def _stacked(*arrays):
    return np.stack(arrays)
