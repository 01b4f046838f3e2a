"""Language models as directories that transformers and the original libraries load."""

import json
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_ssm import presets
from keras_ssm.atomic_directory import writing_directory
from keras_ssm.convert.containers.safetensors_file import write_stored
from keras_ssm.convert.formats import (
    hyena_hf,
    hyena_original,
    hyena_weights,
    mamba_hf,
    mamba_original,
    mamba_weights,
)
from keras_ssm.convert.formats.mamba_fields import MambaSpec
from keras_ssm.convert.formats.published_fields import MIXERS, PublishedSpec
from keras_ssm.convert.formats.published_weights import HEAD, WRITTEN
from keras_ssm.convert.mapping import check_floats, check_supported
from keras_ssm.convert.published_model import find_weight
from keras_ssm.convert.published_tokenizer import write_tokenizer
from keras_ssm.models import SSMCausalLM

TARGETS = {
    presets.HF: mamba_hf,
    presets.ORIGINAL: mamba_original,
    presets.HYENA_HF: hyena_hf,
    presets.HYENA_ORIGINAL: hyena_original,
}
OF_TRANSFORMERS = (presets.HF, presets.HYENA_HF)

# Mixers that models of a format may have.
KINDS_OF = {presets.HYENA_HF: ("hyena",), presets.HYENA_ORIGINAL: ("hyena",)}
MAMBA = ("mamba", "mamba2")

# Names of dtypes in files of safetensors.
KINDS = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}


def export_published(model, path, to, overwrite=False):
    """Writes a language model as a directory; returns remarks. See `export_checkpoint`."""
    spec = describe(model, KINDS_OF.get(to, MAMBA))
    config = TARGETS[to].write_config(spec)
    remarks = []
    if model.backbone.dropout and spec.kind in MAMBA:
        remarks.append(
            "The published classes have no dropout: what goes on training there has none."
        )
    if to in OF_TRANSFORMERS and all(ids is None for ids in _special_tokens(model).values()):
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
        if to in OF_TRANSFORMERS:
            _write_hf(model, spec, config, directory)
        else:
            write = _write_mamba if spec.kind in MAMBA else _write_hyena
            write(model, spec, directory)
            _write_json(directory / "config.json", config)
        write_tokenizer(model, directory)
    return remarks


def describe(model, kinds=MAMBA) -> PublishedSpec:
    """A model as a published one is described.

    Args:
        model: `SSMCausalLM`.
        kinds: tuple of str. Keys of `MIXERS` that its mixer may be.

    Raises:
        ValueError: for a model that no published class covers.
    """
    if not isinstance(model, SSMCausalLM):
        raise ValueError(
            "A published model of this format is a language model, `SSMCausalLM`. "
            f"Received: {type(model).__name__}"
        )
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    kind = next((kind for kind in kinds if type(mixer) is MIXERS[kind]), None)
    if kind is None:
        raise ValueError(
            "A published model of this format has the mixer "
            f"{' or '.join(MIXERS[kind].__name__ for kind in kinds)}. "
            f"Received: mixer {type(mixer).__name__}"
        )
    _check_blocks(backbone, kind)
    check_floats(model)
    arguments = {
        name: value
        for name, value in mixer.get_config().items()
        if name not in ("name", "trainable", "dtype", "seed")
    }
    names = ("num_layers", "hidden_dim", "vocabulary_size", "norm", "norm_epsilon")
    names = (*names, "residual_dtype")
    if kind not in MAMBA:
        names = (*names, "intermediate_dim", "encoder_dropout", "dropout")
    sizes = {name: getattr(backbone, name) for name in names}
    cls = MambaSpec if kind in MAMBA else PublishedSpec
    return cls(kind, arguments, sizes, model.tie_embeddings, {}, [])


def _check_blocks(backbone, kind):
    """Raises a `ValueError` for blocks that published models with this mixer have not."""
    check_supported(
        encoder=(backbone.encoder, ("auto", "embedding")),
        activation=(backbone.activation, (None, "linear")),
        gate=(backbone.gate, (None,)),
        bottleneck=(backbone.bottleneck, (None,)),
        prenorm=(backbone.prenorm, (True,)),
        final_norm=(backbone.final_norm, (backbone.norm,)),
    )
    if kind in MAMBA:
        check_supported(
            norm=(backbone.norm, ("rms", "layer")),
            intermediate_dim=(backbone.intermediate_dim, (None,)),
        )
        return
    check_supported(norm=(backbone.norm, ("layer",)))
    if backbone.intermediate_dim is None:
        raise ValueError(
            "The official classes need an `intermediate_dim`, the width of the MLP of each block. "
            "Received: intermediate_dim=None"
        )


def _write_hf(model, spec, config, directory):
    hyena = spec.kind not in MAMBA
    tensors = {}
    for weight in (hyena_weights if hyena else mamba_weights).weights_of(spec):
        inner = hyena and weight.name != HEAD
        name = f"hyena.{weight.name}" if inner else weight.name
        kind = KINDS[_dtype(find_weight(model, weight.target))]
        tensors[name] = weight.shape, kind, lambda w=weight: _array(model, w)
    if hyena and spec.tie_embeddings:  # whose classes do not tie the head by themselves
        tensors[HEAD] = tensors[f"hyena.{hyena_weights.TABLE}"]
    write_stored(directory / "model.safetensors", tensors)
    dtype = model.backbone.dtype_policy.variable_dtype
    tokens = _special_tokens(model)
    _write_json(directory / "config.json", {**config, **tokens, "dtype": dtype})
    _write_json(directory / "generation_config.json", {"_from_model_config": True, **tokens})


def _write_mamba(model, spec, directory):
    content = _torch_tensors(model, mamba_weights.weights_of(spec))
    table = f"backbone.{mamba_weights.TABLES[1]}.weight"
    names = {mamba_weights.TABLE: table}
    content = {names.get(name, name): tensor for name, tensor in content.items()}
    if spec.tie_embeddings:  # one storage, as in published files
        content[HEAD] = content[table]
    else:  # last, as in published files
        content[HEAD] = content.pop(HEAD)
    _save_torch(content, directory / "pytorch_model.bin")


def _write_hyena(model, spec, directory):
    content = _torch_tensors(model, hyena_weights.weights_of(spec))
    # One storage, as in published files.
    content |= {name: content[first] for name, first in hyena_weights.frequencies(spec)}
    content[HEAD] = content[hyena_weights.TABLE]
    content = {f"model.{name}": tensor for name, tensor in content.items()}
    _save_torch({"state_dict": content}, directory / "weights.ckpt")


def _torch_tensors(model, weights):
    """Dict of the names of tensors to them, of PyTorch."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            "Checkpoints of the original libraries are written with PyTorch: pip install "
            "'keras-ssm[torch]'. Received: no torch"
        ) from None
    content = {}
    for weight in weights:
        content[weight.name] = torch.from_numpy(np.array(_array(model, weight)))
        if _dtype(find_weight(model, weight.target)) == "bfloat16":
            content[weight.name] = content[weight.name].to(torch.bfloat16)
    return content


def _save_torch(content, path):
    import torch

    torch.save(content, path)


def _array(model, weight):
    """The tensor of a weight; bfloat16 as float32, which holds it exactly."""
    variable = find_weight(model, weight.target)
    dtype = _dtype(variable)
    exact = "float32" if dtype == "bfloat16" else dtype
    value = ops.convert_to_numpy(ops.cast(variable, exact))
    return WRITTEN[weight.arranged](value).reshape(weight.shape)


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
