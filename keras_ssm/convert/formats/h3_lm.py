"""Language models of HazyResearch/H3: a bare `model.pt`, or a Lightning checkpoint of one."""

import numpy as np

from keras_ssm.convert.formats import h3_layer
from keras_ssm.convert.formats.published_weights import HEAD
from keras_ssm.convert.formats.torch_arrays import array, put_dense, put_norm
from keras_ssm.convert.mapping import ModelSpec, WeightMap, check_supported, dense, flat, same
from keras_ssm.layers import H3
from keras_ssm.models import SSMCausalLM

TABLE = "backbone.embeddings.word_embeddings.weight"

# The names of the code of today, and of the code that wrote the published files. That code had the
# norms behind the sums, and numbered them so.
TODAY, FORMER = "backbone.", "s4seq.encoder."
FORMER_TABLE = "embedding.weight"

EPSILON, EMBED_DROPOUT = 1e-5, 0.1  # of the published classes, which write no configuration

OPTIONS = {
    "activation": None,
    "gate": None,
    "norm": "layer",
    "prenorm": True,
    "final_norm": "layer",
    "tie_dropout": False,
}


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return any(h3_layer.is_h3(tensors, f"{stem}layers.0.mixer.") for stem in (TODAY, FORMER))


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.

    Raises:
        ValueError: for a hybrid model, whose layers of attention are named.
    """
    stem = TODAY if h3_layer.is_h3(tensors, f"{TODAY}layers.0.mixer.") else FORMER
    layers = settings.derive("num_layers", tensors.count(f"{stem}layers.{{}}."))
    _check_no_attention(tensors, stem, layers)
    hyper = settings.hyper("ssm_cfg", default={})
    hyper = hyper if isinstance(hyper, dict) else {}
    mixer = h3_layer.mixer(tensors, f"{stem}layers.0.mixer.", settings, hyper)
    table = tensors.first(TABLE, FORMER_TABLE) or TABLE
    rows, width = tensors.shape(table)
    if HEAD in tensors:
        if not np.array_equal(tensors[HEAD], tensors[table]):
            raise ValueError(
                f"The published model has one table: '{HEAD}' must hold what '{table}' holds. "
                "Received: other numbers"
            )
        tensors.drop(HEAD, "the embeddings once more")
    inner = tensors.shape(f"{stem}layers.0.mlp.fc1.weight")[0]
    in_float32 = settings.hyper("residual_in_fp32", default=False)
    backbone = {
        **{name: settings.published(name, value) for name, value in OPTIONS.items()},
        "num_layers": layers,
        "hidden_dim": settings.derive("hidden_dim", width),
        "vocabulary_size": settings.derive("vocabulary_size", rows),
        "intermediate_dim": settings.derive("intermediate_dim", inner),
        "norm_epsilon": settings.choose(
            "norm_epsilon", EPSILON, settings.hyper("layer_norm_epsilon")
        ),
        "encoder_dropout": settings.choose(
            "encoder_dropout", EMBED_DROPOUT, settings.hyper("embed_dropout")
        ),
        "dropout": settings.choose("dropout", 0.0, settings.hyper("resid_dropout")),
        "residual_dtype": settings.choose("residual_dtype", "float32" if in_float32 else None),
    }
    maps = [WeightMap("backbone.encoder_layer.embeddings", (table,), same)]
    names = dict(_norms(tensors, stem, layers))
    for i in range(layers):
        here, target = f"{stem}layers.{i}.", f"backbone.blocks.{i}"
        maps += h3_layer.weight_maps(tensors, f"{here}mixer.", f"{target}.mixer")
        maps += dense(f"{target}.mlp_dense", f"{here}mlp.fc1", tensors)
        maps += dense(f"{target}.mlp_output_dense", f"{here}mlp.fc2", tensors)
    for target, name in names.items():
        maps.append(WeightMap(f"{target}.gamma", (f"{name}.weight",), flat))
        maps.append(WeightMap(f"{target}.beta", (f"{name}.bias",), flat))
    remarks = [h3_layer.HEADS_APART] if mixer.head_dim > 1 else []
    task = {"tie_embeddings": settings.published("tie_embeddings", True)}
    return ModelSpec(mixer, backbone, SSMCausalLM, task, maps, remarks)


def _check_no_attention(tensors, stem, layers):
    attention = [i for i in range(layers) if f"{stem}layers.{i}.mixer.Wqkv.weight" in tensors]
    if attention:
        raise ValueError(
            "All layers must be H3: this is a hybrid, and attention has no counterpart here. "
            f"Received: attention in layers {', '.join(map(str, attention))} of {layers}"
        )


def _norms(tensors, stem, layers):
    """The norms of ours, each with its name in the file."""
    if f"{stem}ln_f.weight" in tensors:
        yield "backbone.last_norm", f"{stem}ln_f"
        for i in range(layers):
            yield f"backbone.blocks.{i}.norm", f"{stem}layers.{i}.norm1"
            yield f"backbone.blocks.{i}.mlp_norm", f"{stem}layers.{i}.norm2"
        return
    # A norm behind each sum, and one behind the embeddings.
    first = f"{stem}norm" if f"{stem}norm.weight" in tensors else f"{stem}ln_0"
    for i in range(layers):
        yield f"backbone.blocks.{i}.norm", f"{stem}layers.{i - 1}.norm2" if i else first
        yield f"backbone.blocks.{i}.mlp_norm", f"{stem}layers.{i}.norm1"
    yield "backbone.last_norm", f"{stem}layers.{layers - 1}.norm2"


def export(model, to):
    """Returns what a file holds, and remarks.

    Args:
        model: `SSMCausalLM` over H3.
        to: str. `"h3-lm"`.

    Returns:
        Tuple `(tensors, configuration, remarks)`, as `h3_lightning.export`; the configuration is
        `None`, since the published files have none.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    mixer = model.backbone.blocks[0].mixer
    if not isinstance(mixer, H3) or not isinstance(model, SSMCausalLM):
        raise ValueError(
            f"A model for {to!r} must be an SSMCausalLM with a mixer H3. "
            f"Received: a {type(model).__name__} with a mixer {type(mixer).__name__}"
        )
    backbone = model.backbone
    check_supported(
        **{name: (getattr(backbone, name), (OPTIONS[name],)) for name in list(OPTIONS)[:5]},
        bottleneck=(backbone.bottleneck, (None,)),
        encoder=(backbone.encoder, ("auto", "embedding")),
        shift_dim=(mixer.shift_dim, (mixer.state_dim,)),
        tie_embeddings=(model.tie_embeddings, (True,)),
    )
    if backbone.intermediate_dim is None:
        raise ValueError(
            "The official classes need an `intermediate_dim`, the width of the MLP of each block. "
            "Received: intermediate_dim=None"
        )
    tensors = {TABLE: array(backbone.encoder_layer.embeddings)}
    for i, block in enumerate(backbone.blocks):
        here = f"{TODAY}layers.{i}."
        layer = h3_layer.layer_tensors(block.mixer)
        tensors |= {f"{here}mixer.{name}": value for name, value in layer.items()}
        put_norm(tensors, f"{here}norm1.", block.norm)
        put_norm(tensors, f"{here}norm2.", block.mlp_norm)
        put_dense(tensors, f"{here}mlp.fc1", block.mlp_dense)
        put_dense(tensors, f"{here}mlp.fc2", block.mlp_output_dense)
    put_norm(tensors, f"{TODAY}ln_f.", backbone.last_norm)
    tensors[HEAD] = tensors[TABLE]
    remarks = [
        "The file says no settings: the official class is to be made with "
        f"d_model={backbone.hidden_dim}, n_layer={backbone.num_layers}, "
        f"d_inner={backbone.intermediate_dim}, vocab_size={backbone.vocabulary_size}, "
        f"layer_norm_epsilon={backbone.norm_epsilon:g} and ssm_cfg="
        f"{{'d_state': {mixer.state_dim}, 'head_dim': {mixer.head_dim}, "
        f"'l_max': {mixer.max_kernel_length}, 'mode': 'diag', "
        f"'disc': {mixer.discretization!r}}}."
    ]
    return tensors, None, remarks + ([h3_layer.HEADS_APART] if mixer.head_dim > 1 else [])
