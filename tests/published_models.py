"""Small directories of Mamba models, as other libraries publish them."""

import json
import shutil

import numpy as np

from keras_ssm.convert import export_checkpoint
from keras_ssm.convert.containers.safetensors_file import read_stored, write_stored
from keras_ssm.layers import Mamba, Mamba2
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests.backend_tools import to_numpy

IDS = np.array([[3, 1, 4, 1, 5, 2], [2, 6, 5, 3, 5, 0]], "int32")

# Codestral's files do not say sizes: a mixer of these has one head of 64.
CODESTRAL = {"state_dim": 128, "head_dim": 64}


def make_model(kind="mamba", hidden_dim=4, tie_embeddings=True, norm="rms", **arguments):
    """A language model with weights as if trained; its mixer has state 4 and heads of 4."""
    defaults = {"state_dim": 4, "head_dim": 4} if kind == "mamba2" else {"state_dim": 4}
    mixer = {"mamba": Mamba, "mamba2": Mamba2}[kind](**{**defaults, **arguments}, seed=0)
    backbone = SSMBackbone(
        mixer,
        num_layers=1,
        hidden_dim=hidden_dim,
        vocabulary_size=8,
        activation=None,
        gate=None,
        norm=norm,
        prenorm=True,
        final_norm=norm,
        residual_dtype="float32",
    )
    model = SSMCausalLM(backbone, tie_embeddings=tie_embeddings)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        noise = 0.1 * rng.standard_normal(weight.shape)
        weight.assign((to_numpy(weight) + noise).astype("float32"))
    return model


def written(model, directory, to="mamba-hf"):
    """The model as a directory of one of the formats; returns the directory."""
    if to != "mamba-codestral":
        export_checkpoint(model, directory, to)
        return directory
    export_checkpoint(model, directory, "mamba-hf")
    tensors = {f"model.{name}": t for name, t in read_tensors(directory).items()}
    table = tensors.pop("model.backbone.embeddings.weight")
    write_tensors(
        directory / "consolidated.safetensors", {"model.backbone.embedding.weight": table} | tensors
    )
    backbone = model.backbone
    params = {"dim": backbone.hidden_dim, "n_layers": backbone.num_layers, "n_groups": 1}
    params |= {"vocab_size": backbone.vocabulary_size, "pad_vocab_size_multiple": 1}
    params |= {"rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}
    params |= {"tie_embeddings": model.tie_embeddings, "model_type": "mamba"}
    write_json(directory / "params.json", params)
    (directory / "tokenizer.model.v3").write_bytes(b"sentencepiece")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (directory / name).unlink()
    return directory


def read_tensors(directory, name="model.safetensors"):
    """The arrays of a file by their names."""
    return {name: stored.array() for name, stored in read_stored(directory / name).items()}


def write_tensors(path, tensors, kind=None):
    """Writes arrays, as they are or as one `kind` of number: `"F16"`, `"BF16"`, ..."""
    kinds = {"f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8"}
    write_stored(
        path,
        {
            name: (array.shape, kind or kinds[array.dtype.str[1:]], lambda a=array: a)
            for name, array in tensors.items()
        },
    )


def in_shards(directory, count=3):
    """Spreads the weights of a directory over files and an index."""
    tensors = read_tensors(directory)
    files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    index = {name: files[i % count] for i, name in enumerate(tensors)}
    for file in files:
        here = {name: array for name, array in tensors.items() if index[name] == file}
        write_tensors(directory / file, here)
    write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    (directory / "model.safetensors").unlink()
    return directory


def change(directory, name="config.json", **fields):
    """Sets fields of a configuration; `None` removes one."""
    config = {**json.loads((directory / name).read_text()), **fields}
    write_json(directory / name, {k: v for k, v in config.items() if v is not None})


def write_json(path, content):
    path.write_text(json.dumps(content))


def copied(directory, destination):
    """A copy that may be written to."""
    shutil.copytree(directory, destination, copy_function=shutil.copyfile)
    return destination


def logits(model):
    return to_numpy(model(IDS))


def weights(model):
    """Weights by their paths."""
    return {weight.path: to_numpy(weight) for weight in model.weights}
