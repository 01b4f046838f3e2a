"""Names, shapes and arrangement of the tensors of HyenaDNA, of both formats."""

import re
from collections.abc import Iterator

from keras_ssm.convert.formats.published_fields import PublishedSpec
from keras_ssm.convert.formats.published_weights import HEAD, PublishedWeight

TABLE = "backbone.embeddings.word_embeddings.weight"

# The first layer of a model, and the prefix before it.
_ANCHOR = re.compile(r"(.*?)layers\.0\.mixer(\.layer)?\.filter_fn\.bias$")

# What gradient checkpointing puts into names.
_WRAPPER = re.compile(r"\.(mixer|mlp)\.layer\.")

# One factor in all sines of a filter, under a name for each of them.
_FREQUENCY = re.compile(r"(.*filter_fn\.implicit_filter\.)(\d+)(\.freq)$")


def recognises(tensors) -> bool:
    """Whether tensors are named as in a HyenaDNA model."""
    return any(_ANCHOR.match(name) for name in tensors.arrays)


def refuse_alone(tensors, settings):
    """Raises a `ValueError`: the tensors alone do not say enough."""
    raise ValueError(
        "Weights of HyenaDNA are read with the configuration beside them: name their directory, "
        "or keep the published names of its files (`config.json` with `model.safetensors` or "
        "`weights.ckpt`). Received: a file of tensors alone"
    )


def standard_names(names) -> dict[str, str]:
    """Dict of the names of the original code to those in a file.

    Args:
        names: collection of str. The names in the file.

    Raises:
        ValueError: if there is no layer of Hyena, there are several models, or two tensors stand
            for one.
    """
    prefixes = sorted({match[1] for name in names if (match := _ANCHOR.match(name))})
    if len(prefixes) != 1:
        received = f"models at {prefixes}" if prefixes else f"{', '.join(sorted(names)[:6])}, ..."
        raise ValueError(
            "The tensors must be those of one HyenaDNA model, with names that end in "
            f"'layers.0.mixer.filter_fn.bias' and so on. Received: {received}"
        )
    (prefix,) = prefixes
    outer, sources = prefix.removesuffix("backbone."), {}
    for name in names:
        standard = name
        if name == outer + HEAD:
            standard = HEAD
        elif name.startswith(prefix):
            standard = "backbone." + _WRAPPER.sub(r".\1.", name.removeprefix(prefix))
        if sources.setdefault(standard, name) != name:
            raise ValueError(
                f"One tensor must stand for '{standard}'. Received: {sources[standard]}, {name}"
            )
    for standard in [name for name in sources if _FREQUENCY.match(name)]:
        first = _first(standard)
        if first not in sources:  # the library keeps one of the names
            sources[first] = sources.pop(standard)
    return sources


def beside(names) -> dict[str, str | None]:
    """Tensors beside those of the weights that may be in a file.

    Args:
        names: dict as `standard_names` returns it.

    Returns:
        Dict of standard names to that of the tensor which must hold the same, or to `None` for
        tensors that are no part of the model.
    """
    found = {}
    for name in names:
        if _FREQUENCY.match(name) and name != _first(name):
            found[name] = _first(name)
        elif not name.startswith("backbone.") and name != HEAD:
            found[name] = None
    return found


def _first(name):
    stem, _, end = _FREQUENCY.match(name).groups()
    return f"{stem}1{end}"


def frequencies(spec: PublishedSpec) -> Iterator[tuple[str, str]]:
    """The further names of the factors in the sines, each with its first one."""
    for i in range(spec.backbone["num_layers"]):
        stem = f"backbone.layers.{i}.mixer.filter_fn.implicit_filter"
        for j in range(spec.mixer["filter_depth"]):
            yield f"{stem}.{2 * j + 3}.freq", f"{stem}.1.freq"


def weights_of(spec: PublishedSpec) -> Iterator[PublishedWeight]:
    """Every weight of a language model and its tensor."""
    width, vocabulary = spec.backbone["hidden_dim"], spec.backbone["vocabulary_size"]
    yield PublishedWeight("backbone.encoder_layer.embeddings", TABLE, (vocabulary, width))
    if not spec.tie_embeddings:
        yield PublishedWeight("head.kernel", HEAD, (vocabulary, width), "transposed")
    inner = spec.backbone["intermediate_dim"]
    for i in range(spec.backbone["num_layers"]):
        target, name = f"backbone.blocks.{i}", f"backbone.layers.{i}"
        yield from _norm(f"{target}.norm", f"{name}.norm1", width)
        yield from _mixer(spec.mixer, f"{target}.mixer", f"{name}.mixer", width)
        yield from _norm(f"{target}.mlp_norm", f"{name}.norm2", width)
        yield from _linear(f"{target}.mlp_dense", f"{name}.mlp.fc1", inner, width)
        yield from _linear(f"{target}.mlp_output_dense", f"{name}.mlp.fc2", width, inner)
    yield from _norm("backbone.last_norm", "backbone.ln_f", width)


def _norm(target, name, width):
    yield PublishedWeight(f"{target}.gamma", f"{name}.weight", (width,))
    yield PublishedWeight(f"{target}.beta", f"{name}.bias", (width,))


def _linear(target, name, outputs, inputs):
    yield PublishedWeight(f"{target}.kernel", f"{name}.weight", (outputs, inputs), "transposed")
    yield PublishedWeight(f"{target}.bias", f"{name}.bias", (outputs,))


def _mixer(mixer, target, name, width):
    inner, filters = (mixer["order"] + 1) * width, (mixer["order"] - 1) * width
    length, positions, inside = mixer["max_length"], mixer["emb_dim"], mixer["filter_width"]
    network = f"{name}.filter_fn.implicit_filter"

    def weight(local, source, *shape, arranged="reshaped", derived=False):
        return PublishedWeight(f"{target}.{local}", f"{name}.{source}", shape, arranged, derived)

    yield from _linear(f"{target}.in_proj", f"{name}.in_proj", inner, width)
    conv = inner, 1, mixer["conv_width"]
    yield weight("conv_kernel", "short_filter.weight", *conv, arranged="conv")
    yield weight("conv_bias", "short_filter.bias", inner)
    yield weight("positions", "filter_fn.pos_emb.z", 1, length, positions, derived=True)
    yield weight("times", "filter_fn.pos_emb.t", 1, length, 1, derived=True)
    yield weight("frequencies", "filter_fn.implicit_filter.1.freq", 1, inside)
    layers = mixer["filter_depth"] + 1
    for i in range(layers):
        here, inputs = f"{network}.{2 * i}", inside if i else positions
        kernel, bias = (f"{target}.filter_layers.{i}.{j}" for j in (0, 1))
        yield PublishedWeight(kernel, f"{here}.weight", (inside, inputs), "transposed")
        yield PublishedWeight(bias, f"{here}.bias", (inside,))
    last = f"{network}.{2 * layers}.weight"
    yield PublishedWeight(f"{target}.filter_output", last, (filters, inside), "transposed")
    yield weight("decay", "filter_fn.modulation.deltas", 1, 1, filters, derived=True)
    yield weight("D", "filter_fn.bias", filters)
    yield from _linear(f"{target}.out_proj", f"{name}.out_proj", width, width)
