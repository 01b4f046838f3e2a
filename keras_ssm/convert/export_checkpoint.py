import json
from pathlib import Path

import keras

from keras_ssm.atomic_file import writing_file
from keras_ssm.checks import check_choice
from keras_ssm.convert import published_export
from keras_ssm.convert.containers import flax_msgpack
from keras_ssm.convert.formats import (
    h3_lightning,
    h3_lm,
    kernel_export,
    lru_export,
    s4_export,
    s5_export,
)
from keras_ssm.convert.mapping import check_floats
from keras_ssm.types import PathLike

TARGETS = {"s4-example": s4_export, "s4-block": s4_export, "s5-flax": s5_export}
TARGETS |= {"lru-flax": lru_export, **dict.fromkeys(kernel_export.MIXERS, kernel_export)}
TARGETS |= {"h3-lightning": h3_lightning, "h3-lm": h3_lm}
TARGETS |= published_export.TARGETS


def export_checkpoint(
    model: keras.Model, path: PathLike, to: str, overwrite: bool = False
) -> list[str]:
    """Writes a model as a checkpoint that the official classes load.

    C of S4 is written as it is, with `l_kernel` 0, which the official code turns into C~ at the
    first length it sees.

    Args:
        model: `SSMClassifier`, `SSMImageClassifier`, `SSMPairClassifier` over S5, or `SSMCausalLM`
            over Mamba, Mamba-2, Hyena or H3.
        path: str or `Path`. Written whole or not at all. For `"mamba-..."` and `"hyena-..."` a
            directory, of which files that are no part of the model stay.
        to: str. `"s4-example"` (a file of `example.py` of state-spaces/s4 with minimal `S4D`),
            `"s4-block"` (the same with `S4Block`: its tensors are those below
            `s4_layers.i.`), `"s5-flax"` or `"lru-flax"` (msgpack of `params` and `batch_stats`, for
            lindermanlab/S5 or NicolasZucchet/minimal-LRU), `"longconv-example"` or
            `"longconv-lightning"` (files of HazyResearch/safari), `"sgconv-lightning"` (of models
            around the layer of ctlllll/SGConv), `"h3-lightning"` (of safari), `"s4nd-lightning"`
            (models of images of state-spaces/s4), `"mamba-hf"` (`config.json`,
            `generation_config.json` and `model.safetensors` of transformers),
            `"mamba-original"` (`config.json` and `pytorch_model.bin` of state-spaces/mamba),
            `"hyena-hf"` (as `"mamba-hf"`, for HyenaDNA), `"hyena-original"` (`config.json` and
            `weights.ckpt` of hyena-dna) or `"h3-lm"` (a state dict of HazyResearch/H3).
        overwrite: bool. Whether a file, or a model in the directory, is replaced.
            Defaults to `False`.

    Returns:
        List of str. What the official classes do otherwise. The arguments that they need stand
        in the file (`hyper_parameters`), for flax in `NAME.json` beside it.

    Raises:
        ValueError: for an unknown target, a model that the official classes do not cover or
            whose weights are quantised, or something at the destination without `overwrite`.
        ImportError: if PyTorch (for all but safetensors and `...-flax`) or msgpack (for `...-flax`)
            is not installed.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s5_digits")
        remarks = keras_ssm.convert.export_checkpoint(model, "s5.msgpack", to="s5-flax")
        ```

    Reference:
        [S4](https://github.com/state-spaces/s4), [S5](https://github.com/lindermanlab/S5),
        [LRU](https://github.com/NicolasZucchet/minimal-LRU),
        [Mamba](https://github.com/state-spaces/mamba).
    """
    check_choice("to", to, TARGETS)
    if to in published_export.TARGETS:
        return published_export.export_published(model, path, to, overwrite)
    check_floats(model)
    content, configuration, remarks = TARGETS[to].export(model, to)
    _check_free(Path(path), to, overwrite)
    if to.endswith("-flax"):
        path = Path(path)
        with writing_file(path) as file:
            file.write_bytes(flax_msgpack.write(content))
            with writing_file(path.with_name(path.name + ".json")) as beside:
                beside.write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
    else:
        with writing_file(path) as file:
            key = "state_dict" if to.endswith("-lightning") else "model"
            _save_torch(key if configuration is not None else None, content, configuration, file)
    return remarks


def _check_free(path, to, overwrite):
    """Raises a `ValueError` where a file would be replaced unasked."""
    names = [path.name] + [f"{path.name}.json"] * to.endswith("-flax")
    present = [name for name in names if path.with_name(name).exists()]
    if present and not overwrite:
        raise ValueError(
            "The destination must be a new file, or `overwrite` must be True to replace it. "
            f"Received: '{path.with_name(present[0])}', which is there"
        )


def _save_torch(key, tensors, configuration, file):
    """Writes tensors of PyTorch: below a key with their configuration, or bare."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            "Checkpoints of state-spaces/s4 are written with PyTorch: pip install "
            "'keras-ssm[torch]'. Received: no torch"
        ) from None
    content = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    if key is not None:
        content = {key: content, "acc": 0.0, "epoch": 0, "hyper_parameters": configuration}
    torch.save(content, file)
