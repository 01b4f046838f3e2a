import json

import h5py
import keras
import numpy as np

from keras_ssm import presets
from keras_ssm.atomic_file import writing_file
from keras_ssm.checks import check_positive
from keras_ssm.models.saving import sample_check
from keras_ssm.models.saving.adapted_files import LOW_RANK, adapted_layers, keep_apart
from keras_ssm.types import PathLike

_FORMAT = 1


class Adapters:
    """Files of low-rank updates for backbone and task models, with all that trains beside them."""

    def save_lora_weights(self, filepath: PathLike) -> None:
        """Saves all that trains after `enable_lora`: the low-rank updates and, in a task, the head.

        Args:
            filepath: str or `Path`. Must end in `.lora.h5`. Written whole or not at all.

        Raises:
            ValueError: without `enable_lora`, or for another ending.

        Example:
            ```python
            model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
            model.enable_lora(rank=4)
            model.save_lora_weights("digits.lora.h5")
            model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
            model.load_lora_weights("digits.lora.h5")
            ```
        """
        _check_ending(filepath)
        adapted = adapted_layers(self)
        if not adapted:
            raise ValueError(
                "`save_lora_weights` saves what `enable_lora(rank)` made. "
                f"Received: {self.name} without low-rank updates"
            )
        facts = {
            "format": _FORMAT,
            "model": type(self).__name__,
            "rank": int(adapted[0].lora_rank),
            "layers": sorted({layer.name for layer in adapted}),
            "exact": sample_check.is_exact(self.dtype_policy),
            "sample": self.record_sample(),
        }
        with writing_file(filepath) as scratch, h5py.File(scratch, "w") as file:
            # As an array: attributes of HDF5 end at 64 KB.
            file["facts"] = np.frombuffer(json.dumps(facts).encode(), "uint8").astype("float32")
            for key, weight in _trained(self).items():
                file[f"weights/{key}"] = keras.ops.convert_to_numpy(
                    keras.ops.cast(weight, _stored_dtype(weight))
                )

    def load_lora_weights(self, filepath: PathLike, check_sample: bool = True) -> None:
        """Loads what `save_lora_weights` saved into a model of the same weights.

        If low-rank updates are not enabled yet, they are enabled first.

        Args:
            filepath: str or `Path`. Must end in `.lora.h5`.
            check_sample: bool. Whether the outputs for a short input are compared with those of
                the model that was saved: another model beneath gives others. Defaults to `True`.

        Raises:
            ValueError: for a file that is none, is damaged, or belongs to another model; the
                weights are then as before.
        """
        _check_ending(filepath)
        facts, values = _read(filepath)
        for name, expected in (("model", type(self).__name__), ("format", _FORMAT)):
            if facts.get(name) != expected:
                raise _other(filepath, f"{name}={expected!r}", f"{name}={facts.get(name)!r}")
        _check_fits(self, facts, values, filepath)
        if not adapted_layers(self):
            self.enable_lora(facts["rank"], facts["layers"])
        weights = _by_path(self)
        if lacking := sorted(set(_trained(self)) - set(values)):
            raise _other(filepath, f"a value of '{lacking[0]}', which trains", "none")
        before = {key: keras.ops.copy(weights[key]) for key in values}
        for key, value in values.items():
            weights[key].assign(value)
        if not check_sample:
            return
        exact = facts["exact"] and sample_check.is_exact(self.dtype_policy)
        difference = sample_check.compare(self, facts["sample"], f"adapter '{filepath}'")
        if not difference <= sample_check.tolerance(exact):
            for key, value in before.items():
                weights[key].assign(value)
            raise _other(
                filepath,
                "the weights and the `step_scale` that it was trained with "
                "(`check_sample=False` loads it all the same)",
                f"outputs that differ by {difference:.1g} of the largest",
            )


def enable(backbone, rank, target_layer_names, enable_lora):
    """Enables low-rank updates of a backbone by keras_hub, and freezes all else of its layers."""
    (rank,) = check_positive(rank=rank)
    if adapted_layers(backbone):
        raise ValueError(
            "Low-rank updates can be enabled once. "
            f"Received: {backbone.name}, which has them already"
        )
    if isinstance(target_layer_names, str):
        raise ValueError(
            "`target_layer_names` must be a list of names. "
            f"Received: target_layer_names={target_layer_names!r}"
        )
    names = target_layer_names
    names = backbone.default_lora_layer_names() if names is None else names
    names = list(dict.fromkeys(names))  # keras_hub adapts a layer once for each time it is named
    adaptable = {
        layer.name
        for layer in backbone._flatten_layers(include_self=False)
        if hasattr(layer, "enable_lora") and layer.weights
    }
    if target_layer_names is None and not adaptable & set(names):
        raise ValueError(
            "`target_layer_names` must name layers to adapt, since this model has none of "
            f"{names}, which are adapted by default; it has {sorted(adaptable)}. "
            "Received: target_layer_names=None"
        )
    missing = [] if target_layer_names is None else [n for n in names if n not in adaptable]
    if missing or not names:
        raise ValueError(
            f"`target_layer_names` must name layers of {sorted(adaptable)}. Received: {names}"
        )
    enable_lora(rank, names)
    for layer in adapted_layers(backbone):
        for weight in layer.weights:
            if not weight.path.endswith(LOW_RANK):
                weight.trainable = False
        keep_apart(layer)


def _trained(model):
    """Dict of path to weight: what trains, and the statistics of layers that train."""
    weights = _by_path(model)
    training = {p for p, weight in weights.items() if weight.trainable}
    layers = {p.rpartition("/")[0] for p in training if not p.endswith(LOW_RANK)}
    layers |= {w.path.rpartition("/")[0] for w in getattr(model, "head_statistics", ())}
    return {
        p: weight
        for p, weight in weights.items()
        if p in training or p.endswith(LOW_RANK) or p.rpartition("/")[0] in layers
    }


def _by_path(model):
    return {weight.path: weight for weight in model.weights}


def _stored_dtype(weight):
    return "float64" if keras.backend.standardize_dtype(weight.dtype) == "float64" else "float32"


def _read(filepath):
    try:
        presets.check_weights(filepath)
        with h5py.File(filepath, "r") as file:
            facts = json.loads(file["facts"][()].astype("uint8").tobytes())
            values = {}
            file["weights"].visititems(
                lambda key, entry: (
                    values.update({key: entry[()]}) if isinstance(entry, h5py.Dataset) else None
                )
            )
        check_positive(rank=facts["rank"])
        complete = isinstance(facts["layers"], list) and isinstance(facts["exact"], bool)
        if not complete or not isinstance(facts["sample"], dict):
            raise TypeError("other facts")
    except FileNotFoundError:
        raise ValueError(f"`filepath` must be a file. Received: no file '{filepath}'") from None
    except Exception as error:
        if isinstance(error, ValueError) and "Received: " in str(error):
            raise
        raise ValueError(
            f"Adapter '{filepath}' must be a file that `save_lora_weights` of keras_ssm wrote. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    return facts, values


def _check_fits(model, facts, values, filepath):
    """Compares an adapter with a model before anything of it changes."""
    weights, adapted = _by_path(model), adapted_layers(model)
    if adapted:
        expected = int(adapted[0].lora_rank), sorted({layer.name for layer in adapted})
        stored = facts["rank"], facts["layers"]
        if expected != stored:
            raise _other(
                filepath,
                f"rank={expected[0]} of {expected[1]}, which are enabled",
                f"rank={stored[0]} of {stored[1]}",
            )
    for key, value in values.items():
        layer, _, name = key.rpartition("/")
        shape = tuple(weights[key].shape) if key in weights else None
        # The path of the weight that an update such as "lora_kernel_a" adapts.
        adapts = f"{layer}/{name.removeprefix('lora_')[:-2]}"
        if shape is None and name in LOW_RANK and adapts in weights:
            rows, columns = weights[adapts].shape
            shape = (rows, facts["rank"]) if name.endswith("_a") else (facts["rank"], columns)
        if shape is None:
            raise _other(filepath, "weights of this model", f"'{key}'")
        if value.shape != shape:
            raise _other(filepath, f"'{key}' of shape {shape}", f"shape {value.shape}")


def _other(filepath, expected, received):
    return ValueError(
        f"Adapter '{filepath}' must belong to this model: expected {expected}. Received: {received}"
    )


def _check_ending(filepath):
    if not str(filepath).endswith(".lora.h5"):
        raise ValueError(f"`filepath` must end in '.lora.h5'. Received: filepath={filepath}")
