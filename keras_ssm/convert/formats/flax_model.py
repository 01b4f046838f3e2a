"""What the checkpoints of flax share: encoders, norms, gates and linear layers."""

import numpy as np

from keras_ssm.convert.mapping import WeightMap, same

ROOT, LAYER = "params/encoder/", "params/encoder/layers_{}/"
STATISTICS = "batch_stats/encoder/layers_{}/"


def find_encoder(tensors, settings, file):
    """The arguments of `SSMBackbone` that describe the encoder.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
        file: `"linear"`, `"one_hot"` or `UNSET`. What the configuration says.
    """
    inputs = tensors.shape(f"{ROOT}encoder/kernel")[0]
    if inputs == 1:
        kind = settings.choose("encoder", "linear", file)  # there is no vocabulary of one token
    else:
        kind = settings.ask("encoder", file, ("linear", "one_hot"))
    size = "vocabulary_size" if kind == "one_hot" else "input_dim"
    return {"encoder": kind, size: settings.derive(size, inputs)}


def encoder(kind):
    """Weight maps of the encoder."""
    kernel = "embeddings" if kind == "one_hot" else "kernel"
    for ours, theirs in ((kernel, "kernel"), ("bias", "bias")):
        yield WeightMap(f"backbone.encoder_layer.{ours}", (f"{ROOT}encoder/{theirs}",), same)


def dense(target, *names):
    """Weight maps of a linear layer of flax, or of two of them side by side."""
    for part in ("kernel", "bias"):
        sources = tuple(f"{name}/{part}" for name in names)
        note = "side by side" if len(names) > 1 else ""
        yield WeightMap(f"{target}.{part}", sources, _beside, note)


def norm(tensors, number, name):
    """Weight maps of the norm of a block, which the official code calls `name`."""
    target, key = f"backbone.blocks.{number}.norm", f"{LAYER.format(number)}{name}"
    yield WeightMap(f"{target}.gamma", (f"{key}/scale",), same)
    yield WeightMap(f"{target}.beta", (f"{key}/bias",), same)
    if has_statistics(tensors, name):
        statistics = f"{STATISTICS.format(number)}{name}"
        yield WeightMap(f"{target}.moving_mean", (f"{statistics}/mean",), same)
        yield WeightMap(f"{target}.moving_variance", (f"{statistics}/var",), same)


def has_statistics(tensors, name):
    """Whether the norms of the blocks are batch norms."""
    return f"{STATISTICS.format(0)}{name}/mean" in tensors


def gate(tensors, number):
    """Weight maps of the gate of a block, whose layers are `out1` and `out2`."""
    key = LAYER.format(number)
    names = [f"{key}{name}" for name in ("out1", "out2") if f"{key}{name}/kernel" in tensors]
    if names:
        yield from dense(f"backbone.blocks.{number}.output_dense", *names)


def _beside(*arrays):
    return np.concatenate(arrays, axis=-1)
