"""Flax variables of NicolasZucchet/minimal-LRU: trees of `params` and `batch_stats`.

Such files hold no configuration: the arguments of the training run come with them in a JSON file.
"""

from keras_ssm.convert.formats import flax_model
from keras_ssm.convert.formats.flax_model import LAYER
from keras_ssm.convert.formats.torch_model import translate
from keras_ssm.convert.mapping import ModelSpec, WeightMap, same
from keras_ssm.layers import LRU
from keras_ssm.models import SSMClassifier

POOLINGS = {"mean": "mean", "last": "last", "none": None}

# Our weights by their official names.
WEIGHTS = {
    "nu_log": "nu_log",
    "theta_log": "theta_log",
    "gamma_log": "gamma_log",
    "B_re": "B_real",
    "B_im": "B_imag",
    "C_re": "C_real",
    "C_im": "C_imag",
    "D": "D",
}

LOG_PROBABILITIES = (
    "The official model returns log-probabilities, the log-softmax of the logits of this one."
)


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return f"{LAYER.format(0)}seq/nu_log" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    modes, features = tensors.shape(f"{LAYER.format(0)}seq/B_re")
    batch_norm = flax_model.has_statistics(tensors, "normalization")
    layers = settings.derive("num_layers", tensors.count(LAYER))
    outputs = settings.hyper("multidim", default=1)
    if outputs != 1:
        raise ValueError(
            "A classifier of several labels at once cannot be converted. "
            f"Received: multidim={outputs!r}"
        )
    backbone = {
        "num_layers": layers,
        "hidden_dim": settings.derive("hidden_dim", features),
        **flax_model.find_encoder(tensors, settings, settings.hyper("encoder")),
        "activation": settings.published("activation", "gelu_tanh"),
        "gate": settings.derive("gate", "full_glu"),
        "norm": settings.derive("norm", "batch" if batch_norm else "layer"),
        "prenorm": settings.ask("prenorm", settings.hyper("prenorm")),
        "dropout": settings.choose("dropout", 0.0, settings.hyper("p_dropout")),
        "norm_epsilon": settings.published("norm_epsilon", 1e-5 if batch_norm else 1e-6),
        "norm_momentum": settings.published("norm_momentum", 0.99),
        "mask_inputs": settings.published("mask_inputs", False),
    }
    ring = {name: settings.hyper(name) for name in ("r_min", "r_max", "max_phase")}
    defaults = {"r_min": 0.0, "r_max": 1.0, "max_phase": 6.28}
    mixer = {name: settings.choose(name, defaults[name], ring[name]) for name in ring}
    mixer["state_dim"] = settings.derive("state_dim", modes)
    classes = tensors.shape("params/decoder/kernel")[1]
    file = translate(POOLINGS, "pooling", settings.hyper("pooling"))
    pooling = settings.choose("pooling", "mean", file)
    arguments = {
        "num_classes": settings.derive("num_classes", classes),
        "pooling": None if pooling == "none" else pooling,  # if the configuration says so
    }
    weight_maps = [*flax_model.encoder(backbone["encoder"])]
    for number in range(layers):
        weight_maps += _block(tensors, number)
    weight_maps += flax_model.dense("head", "params/decoder")
    layer = LRU(**settings.arguments(LRU, mixer))
    return ModelSpec(layer, backbone, SSMClassifier, arguments, weight_maps, [LOG_PROBABILITIES])


def _block(tensors, number):
    yield from flax_model.norm(tensors, number, "normalization")
    yield from flax_model.gate(tensors, number)
    seq, mixer = f"{LAYER.format(number)}seq/", f"backbone.blocks.{number}.mixer"
    for theirs, ours in WEIGHTS.items():
        yield WeightMap(f"{mixer}.{ours}", (f"{seq}{theirs}",), same)
