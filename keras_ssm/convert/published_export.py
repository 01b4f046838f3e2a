"""Language models as directories that transformers and state-spaces/mamba load."""

import json
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_ssm import presets
from keras_ssm.atomic_directory import writing_directory
from keras_ssm.convert.containers.safetensors_file import write_stored
from keras_ssm.convert.formats import mamba_hf, mamba_original
from keras_ssm.convert.formats.mamba_fields import MIXERS, MambaSpec
from keras_ssm.convert.formats.mamba_weights import HEAD, TABLES, WRITTEN, weights_of
from keras_ssm.convert.mapping import check_supported
from keras_ssm.convert.published_model import find_weight
from keras_ssm.convert.published_tokenizer import write_tokenizer
from keras_ssm.models import SSMCausalLM

TARGETS = {presets.HF: mamba_hf, presets.ORIGINAL: mamba_original}

# Names of dtypes in files of safetensors.
KINDS = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}


def export_published(model, path, to, overwrite=False):
    """Writes a language model as a directory; returns remarks. See `export_checkpoint`."""
    spec = describe(model)
    config = TARGETS[to].write_config(spec)
    remarks = []
    if model.backbone.dropout:
        remarks.append(
            "The published classes have no dropout: what goes on training there has none."
        )
    if to == presets.HF and all(ids is None for ids in _special_tokens(model).values()):
        remarks.append(
            "Without a tokenizer or `special_token_ids` nothing says which tokens start, end and "
            "pad a text: "
            "`config.json` holds none, and `generate` of transformers stops at none."
        )
    path = Path(path).expanduser()
    if (path / presets.PRESET_FILE).is_file():
        raise ValueError(
            f"The destination of {to!r} must be a directory of its own. Received: '{path}', a "
            "preset of keras_ssm"
        )

    def stays(name):
        return not (presets.is_weight_file(name) or name in ("config.json", "params.json"))

    present = [p.name for p in path.iterdir() if not stays(p.name)] if path.is_dir() else []
    if present and not overwrite:
        raise ValueError(
            "The destination must hold no model, or `overwrite` must be True to replace it. "
            f"Received: '{path}' with {', '.join(sorted(present)[:8])}"
        )
    with writing_directory(path, stays) as directory:
        if to == presets.HF:
            _write_hf(model, spec, config, directory)
        else:
            _write_original(model, spec, directory)
            _write_json(directory / "config.json", config)
        write_tokenizer(model, directory)
    return remarks


def describe(model) -> MambaSpec:
    """A model as a published one is described.

    Raises:
        ValueError: for a model that no published class covers.
    """
    if not isinstance(model, SSMCausalLM):
        raise ValueError(
            "A published Mamba model is a language model, `SSMCausalLM`. "
            f"Received: {type(model).__name__}"
        )
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    kind = next((kind for kind, cls in MIXERS.items() if type(mixer) is cls), None)
    if kind is None:
        raise ValueError(
            "A published Mamba model has the mixer Mamba or Mamba2. "
            f"Received: mixer {type(mixer).__name__}"
        )
    check_supported(
        encoder=(backbone.encoder, ("auto", "embedding")),
        activation=(backbone.activation, (None, "linear")),
        gate=(backbone.gate, (None,)),
        bottleneck=(backbone.bottleneck, (None,)),
        norm=(backbone.norm, ("rms", "layer")),
        prenorm=(backbone.prenorm, (True,)),
        final_norm=(backbone.final_norm, (backbone.norm,)),
    )
    layers = model._flatten_layers()
    quantised = next((layer for layer in layers if layer.quantization_mode is not None), None)
    if quantised is not None:
        raise ValueError(
            "The weights of a published model are floats: export it before it is quantised. "
            f"Received: layer {quantised.name} quantised to {quantised.quantization_mode}"
        )
    arguments = {
        name: value
        for name, value in mixer.get_config().items()
        if name not in ("name", "trainable", "dtype", "seed")
    }
    return MambaSpec(
        kind,
        arguments,
        {
            "num_layers": backbone.num_layers,
            "hidden_dim": backbone.hidden_dim,
            "vocabulary_size": backbone.vocabulary_size,
            "norm": backbone.norm,
            "norm_epsilon": backbone.norm_epsilon,
            "residual_dtype": backbone.residual_dtype,
        },
        model.tie_embeddings,
        TABLES[0],
        {},
        [],
    )


def _write_hf(model, spec, config, directory):
    tensors = {}
    for weight in weights_of(spec):
        variable = find_weight(model, weight.target)
        kind = KINDS[_dtype(variable)]
        tensors[weight.name] = weight.shape, kind, lambda w=weight: _array(model, w)
    write_stored(directory / "model.safetensors", tensors)
    dtype = model.backbone.dtype_policy.variable_dtype
    tokens = _special_tokens(model)
    _write_json(directory / "config.json", {**config, **tokens, "dtype": dtype})
    _write_json(directory / "generation_config.json", {"_from_model_config": True, **tokens})


def _write_original(model, spec, directory):
    try:
        import torch
    except ImportError:
        raise ImportError(
            "Checkpoints of state-spaces/mamba are written with PyTorch: pip install "
            "'keras-ssm[torch]'. Received: no torch"
        ) from None
    content = {}
    table = f"backbone.{TABLES[0]}.weight"
    for weight in weights_of(spec):
        name = f"backbone.{TABLES[1]}.weight" if weight.name == table else weight.name
        content[name] = torch.from_numpy(np.array(_array(model, weight)))
        if _dtype(find_weight(model, weight.target)) == "bfloat16":
            content[name] = content[name].to(torch.bfloat16)
    if spec.tie_embeddings:  # one storage, as in published files
        content[HEAD] = content[f"backbone.{TABLES[1]}.weight"]
    else:  # last, as in published files
        content[HEAD] = content.pop(HEAD)
    torch.save(content, directory / "pytorch_model.bin")


def _array(model, weight):
    """The tensor of a weight; bfloat16 as float32, which holds it exactly."""
    variable = find_weight(model, weight.target)
    dtype = _dtype(variable)
    exact = "float32" if dtype == "bfloat16" else dtype
    value = ops.convert_to_numpy(ops.cast(variable, exact))
    return WRITTEN[weight.arranged](value)


def _dtype(variable):
    """The dtype of a weight, also of one that was adapted, which is a tensor of the backend."""
    return keras.backend.standardize_dtype(variable.dtype)


def _special_tokens(model):
    """The ids of special tokens, as far as a tokenizer or else the model says them."""
    tokenizer, own = getattr(model.preprocessor, "tokenizer", None), model.special_token_ids or {}
    names = {"bos": "start_token_id", "eos": "end_token_id", "pad": "pad_token_id"}
    ids = {f"{key}_token_id": getattr(tokenizer, name, None) for key, name in names.items()}
    return {name: own.get(name) if value is None else int(value) for name, value in ids.items()}


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
