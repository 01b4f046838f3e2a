"""Flax variables of lindermanlab/S5: trees of `params` and `batch_stats`.

Such files hold no configuration: the arguments of the training run come with them in a JSON file.
"""

import numpy as np

from keras_ssm.convert.formats import flax_model
from keras_ssm.convert.formats.flax_model import LAYER
from keras_ssm.convert.formats.torch_model import translate
from keras_ssm.convert.mapping import ModelSpec, WeightMap, complex_parts, flat, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import S5
from keras_ssm.models import SSMClassifier, SSMPairClassifier

GATES = {"gelu": None, "full_glu": "full_glu", "half_glu1": "half_glu1", "half_glu2": "half_glu2"}
POOLINGS = {"pool": "mean", "last": "last"}


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return f"{LAYER.format(0)}seq/Lambda_re" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    first = LAYER.format(0)
    modes, features, _ = tensors.shape(f"{first}seq/B")
    batch_norm = flax_model.has_statistics(tensors, "norm")
    layers = settings.derive("num_layers", tensors.count(LAYER))
    backbone = {
        "num_layers": layers,
        "hidden_dim": settings.derive("hidden_dim", features),
        **_encoder(tensors, settings),
        "activation": settings.published("activation", "gelu_tanh"),
        "gate": _gate(tensors, settings),
        "norm": settings.derive("norm", "batch" if batch_norm else "layer"),
        "prenorm": settings.ask("prenorm", settings.hyper("prenorm")),
        "dropout": settings.choose("dropout", 0.0, _either(settings, "dropout", "p_dropout")),
        "norm_epsilon": settings.published("norm_epsilon", 1e-5 if batch_norm else 1e-6),
        "norm_momentum": settings.choose("norm_momentum", 0.95, settings.hyper("bn_momentum")),
        "mask_inputs": settings.published("mask_inputs", False),
    }
    task, arguments, weight_maps = _head(tensors, settings)
    weight_maps += flax_model.encoder(backbone["encoder"])
    for i in range(layers):
        weight_maps += _block(tensors, i, modes)
    mixer = _mixer(tensors, settings, modes)
    return ModelSpec(mixer, backbone, task, arguments, weight_maps, [])


def _mixer(tensors, settings, modes):
    seq = f"{LAYER.format(0)}seq/"
    conj_sym = settings.choose("conj_sym", True, settings.hyper("conj_sym"))
    side_by_side = f"{seq}C" in tensors and tensors.shape(f"{seq}C")[1] == 2 * modes
    both = f"{seq}C1" in tensors or side_by_side
    arguments = {
        "state_dim": settings.derive("state_dim", 2 * modes if conj_sym else modes),
        "conj_sym": conj_sym,
        "bidirectional": settings.derive("bidirectional", both),
        "discretization": settings.choose(
            "discretization", "zoh", settings.hyper("discretization")
        ),
        "clip_eigs": settings.choose("clip_eigs", False, settings.hyper("clip_eigs")),
    }
    # Settings of initial values, which are replaced. One of them keeps both directions in one C.
    if side_by_side:
        arguments["c_init"] = settings.derive("c_init", "complex_normal")
    else:
        arguments["c_init"] = settings.choose("c_init", "lecun_normal", settings.hyper("C_init"))
    arguments["blocks"] = settings.choose("blocks", 1, settings.hyper("blocks"))
    return S5(**settings.arguments(S5, arguments))


def _encoder(tensors, settings):
    file = settings.hyper("tokens_onehot")
    if isinstance(file, bool):
        file = "one_hot" if file else "linear"
    return flax_model.find_encoder(tensors, settings, file)


def _gate(tensors, settings):
    """`out1` and `out2` are a full gate, neither of them is none; which half gate is unsaid."""
    first = LAYER.format(0)
    if f"{first}out1/kernel" in tensors:
        return settings.derive("gate", "full_glu")
    if f"{first}out2/kernel" not in tensors:
        return settings.derive("gate", None)
    file = translate(GATES, "activation_fn", settings.hyper("activation_fn"))
    return settings.choose("gate", "half_glu1", file)


def _head(tensors, settings):
    pooling = translate(POOLINGS, "mode", settings.hyper("mode"))
    arguments = {"pooling": settings.choose("pooling", "mean", pooling)}
    pair, last = "params/decoder/layer1", "params/decoder"
    weight_maps, task = [], SSMClassifier
    if f"{pair}/kernel" in tensors:
        last, task = "params/decoder/layer2", SSMPairClassifier
        arguments["head_dim"] = settings.derive("head_dim", tensors.shape(f"{pair}/kernel")[1])
        arguments["head_activation"] = settings.published("head_activation", "gelu_tanh")
        weight_maps += flax_model.dense("pair_dense", pair)
    classes = tensors[f"{last}/kernel"].shape[1]
    arguments["num_classes"] = settings.derive("num_classes", classes)
    return task, arguments, [*weight_maps, *flax_model.dense("head", last)]


def _block(tensors, number, modes):
    key, target = LAYER.format(number), f"backbone.blocks.{number}"
    yield from flax_model.norm(tensors, number, "norm")
    yield from flax_model.gate(tensors, number)
    seq, mixer = f"{key}seq/", f"{target}.mixer"
    yield WeightMap(f"{mixer}.Lambda_real", (f"{seq}Lambda_re",), same)
    yield WeightMap(f"{mixer}.Lambda_imag", (f"{seq}Lambda_im",), same)
    yield WeightMap(f"{mixer}.log_dt", (f"{seq}log_step",), flat)
    yield WeightMap(f"{mixer}.D", (f"{seq}D",), same)
    yield from complex_parts(f"{mixer}.B", (f"{seq}B",), same, "")
    sources = (f"{seq}C",) if f"{seq}C" in tensors else (f"{seq}C1", f"{seq}C2")

    def directions(*C):
        """C of both directions stands side by side, or in two arrays."""
        C = np.concatenate(C, axis=1)
        return np.stack([C[:, i : i + modes] for i in range(0, C.shape[1], modes)])

    yield from complex_parts(f"{mixer}.C", sources, directions, "")


def _either(settings, *names):
    values = (settings.hyper(name) for name in names)
    return next((value for value in values if value is not UNSET), UNSET)
