"""Names, shapes and arrangement of the tensors of published Mamba models, of all formats."""

import re
from collections.abc import Iterator

from keras_ssm.convert.formats.mamba_fields import MambaSpec
from keras_ssm.convert.formats.published_weights import HEAD, PublishedWeight

# The names of the table, of transformers and of the original.
TABLES = ("embeddings", "embedding")

# The table's tensor, with the names of transformers.
TABLE = f"backbone.{TABLES[0]}.weight"

# The first layer of a model, and the prefix before it.
_ANCHOR = re.compile(r"(.*?)layers\.0\.mixer\.A_log$")


def recognises(tensors) -> bool:
    """Whether tensors are named as in a Mamba model."""
    return any(_ANCHOR.match(name) for name in tensors.arrays)


def refuse_alone(tensors, settings):
    """Raises a `ValueError`: the tensors alone do not say enough."""
    raise ValueError(
        "Weights of a Mamba model are read with the configuration beside them: name their "
        "directory, or keep the published names of its files (`config.json` with "
        "`model.safetensors` or `pytorch_model.bin`). Received: a file of tensors alone"
    )


def prefix_of(names) -> str:
    """What stands before the names of the layers: `"backbone."`, `"model.backbone."` or nothing.

    Raises:
        ValueError: if there is no Mamba layer, or several models are there.
    """
    prefixes = sorted({match[1] for name in names if (match := _ANCHOR.match(name))})
    if len(prefixes) != 1:
        received = f"models at {prefixes}" if prefixes else f"{', '.join(sorted(names)[:6])}, ..."
        raise ValueError(
            "The tensors must be those of one Mamba model, with names that end in "
            f"'layers.0.mixer.A_log' and so on. Received: {received}"
        )
    return prefixes[0]


def standard_names(names) -> dict[str, str]:
    """Dict of the names of transformers to those in a file.

    Args:
        names: collection of str. The names in the file.

    Raises:
        ValueError: as `prefix_of`, or if two tensors stand for one.
    """
    prefix = prefix_of(names)
    outer = prefix.removesuffix("backbone.")
    sources = {}
    for name in names:
        standard = name
        if name == outer + HEAD:
            standard = HEAD
        elif name.startswith(prefix):
            standard = "backbone." + name.removeprefix(prefix)
            if standard == f"backbone.{TABLES[1]}.weight":
                standard = TABLE
        if sources.setdefault(standard, name) != name:
            raise ValueError(
                f"One tensor must stand for '{standard}'. Received: {sources[standard]}, {name}"
            )
    return sources


def weights_of(spec: MambaSpec) -> Iterator[PublishedWeight]:
    """Every weight of a language model and its tensor."""
    width, vocabulary = spec.backbone["hidden_dim"], spec.backbone["vocabulary_size"]
    table = "backbone.encoder_layer.embeddings", TABLE
    yield PublishedWeight(*table, (vocabulary, width))
    if not spec.tie_embeddings:
        yield PublishedWeight("head.kernel", HEAD, (vocabulary, width), "transposed")
    for i in range(spec.backbone["num_layers"]):
        target, name = f"backbone.blocks.{i}", f"backbone.layers.{i}"
        yield from _norm(spec, f"{target}.norm", f"{name}.norm")
        yield from _mixer(spec, f"{target}.mixer", f"{name}.mixer", width)
    yield from _norm(spec, "backbone.last_norm", "backbone.norm_f")


def _norm(spec, target, name) -> Iterator[PublishedWeight]:
    shape = (spec.backbone["hidden_dim"],)
    if spec.backbone["norm"] == "rms":
        yield PublishedWeight(f"{target}.scale", f"{name}.weight", shape)
    else:
        yield PublishedWeight(f"{target}.gamma", f"{name}.weight", shape)
        yield PublishedWeight(f"{target}.beta", f"{name}.bias", shape)


def _mixer(spec, target, name, width) -> Iterator[PublishedWeight]:
    mixer, inner = spec.mixer, spec.inner_dim
    mixer_weights = _mamba2 if spec.kind == "mamba2" else _mamba
    projected, channels, tensors = mixer_weights(spec, inner)

    def weight(local, source, *shape, arranged="same"):
        return PublishedWeight(f"{target}.{local}", f"{name}.{source}", shape, arranged)

    def linear(layer, outputs, inputs, bias):
        yield weight(f"{layer}.kernel", f"{layer}.weight", outputs, inputs, arranged="transposed")
        if bias:
            yield weight(f"{layer}.bias", f"{layer}.bias", outputs)

    yield from linear("in_proj", projected, width, mixer["use_bias"])
    kernel = channels, 1, mixer["conv_width"]
    yield weight("conv_kernel", "conv1d.weight", *kernel, arranged="conv")
    if mixer["conv_bias"]:
        yield weight("conv_bias_weight", "conv1d.bias", channels)
    for arguments, arranged in tensors:
        yield weight(*arguments, arranged=arranged)
    yield from linear("out_proj", width, inner, mixer["use_bias"])


def _mamba(spec, inner):
    """Outputs of the first projection, features of the convolution, and the other tensors."""
    states, rank = spec.mixer["state_dim"], spec.dt_rank
    tensors = [
        (("x_proj.kernel", "x_proj.weight", rank + 2 * states, inner), "transposed"),
        (("dt_proj.kernel", "dt_proj.weight", inner, rank), "transposed"),
        (("dt_bias", "dt_proj.bias", inner), "same"),
        (("A_log", "A_log", inner, states), "same"),
        (("D", "D", inner), "same"),
    ]
    return 2 * inner, inner, tensors


def _mamba2(spec, inner):
    mixer = spec.mixer
    if inner % mixer["head_dim"]:
        raise ValueError(
            "`head_dim` must divide the inner features. "
            f"Received: head_dim={mixer['head_dim']}, {inner} inner features"
        )
    heads = inner // mixer["head_dim"]
    channels = inner + 2 * mixer["num_groups"] * mixer["state_dim"]
    per_feature = mixer.get("D_per_feature", False)
    tensors = [
        (("dt_bias", "dt_bias", heads), "same"),
        (("A_log", "A_log", heads), "same"),
        (("D", "D", inner if per_feature else heads), "reshaped"),
    ]
    if mixer.get("gated_norm", True):
        tensors.append((("norm_scale", "norm.weight", inner), "same"))
    return inner + channels + heads, channels, tensors


def beside(names) -> dict:
    """Tensors beside those of the weights that may be in a file; see `hyena_weights.beside`."""
    return {}
