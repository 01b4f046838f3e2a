"""Recordings of the official code as the files that the converter reads."""

import numpy as np

from keras_ssm.convert.checkpoint import FORMATS
from keras_ssm.convert.containers.checkpoint_file import CheckpointFile
from keras_ssm.convert.settings import Settings
from keras_ssm.convert.tensors import Tensors
from keras_ssm.models import SSMPairClassifier


def official_file(data, config):
    """What a checkpoint of a recorded model would hold.

    Args:
        data: arrays of the recording; `sd/...` or `variables/...` are the official tensors.
        config: dict. The recorded configuration.
    """
    tensors = {}
    for name in data:
        prefix, _, rest = name.partition("/")
        if prefix in ("sd", "variables"):
            tensors[rest] = data[name]
    return CheckpointFile(tensors, config.get("resolved", config), [], "recording")


def weight_maps(file):
    """The weight maps by which the converter gives a model its weights."""
    tensors, settings = Tensors(file.tensors), Settings({}, file.hyper_parameters)
    module = next(m for m in FORMATS.values() if m.recognises(tensors))
    return module.read(tensors, settings).weight_maps


def inputs_of(model, data, floatx="float32"):
    """The recorded inputs and padding as a task model takes them; NumPy arrays."""
    x = data["tokens" if "tokens" in data else "x"]
    length = x.shape[1]
    x = x.astype("int32" if x.dtype.kind == "i" else floatx)
    mask = np.ones(x.shape[:2], bool)
    if "lengths" in data:
        mask = np.arange(length) < data["lengths"].astype(int)[:, None]
    inputs = {model.input_key: x, "padding_mask": mask}
    if isinstance(model, SSMPairClassifier):
        # First all the first documents, then all the second ones.
        inputs = {k: np.stack(np.split(v, 2), axis=1) for k, v in inputs.items()}
    return inputs
