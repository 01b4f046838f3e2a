"""The outputs of a loaded model, compared with those that were recorded when it was saved."""

import keras
import numpy as np

from keras_ssm import presets
from keras_ssm.models.saving.head_files import OF_A_HEAD

# Largest difference over the largest output. Backends and processors differ by 1e-5 at most, the
# fast products of a GPU by 1e-4.
_TOLERANCE = 1e-3
_ROUNDED_TOLERANCE = 0.1  # for layers that compute in half precision or with integers

# Arguments that change no output.
_HARMLESS = {"name", "trainable", "compile", "preprocessor", "dropout", "tie_dropout"}
_HARMLESS |= {"normalize_targets", "class_names"}


def check(model, document, documents, preset, overridden):
    """Compares the outputs of a model with the `sample` in its `preset.json`.

    Where arguments of the caller change the outputs, or the sample is that of another model,
    there is nothing to compare.

    Args:
        model: the model.
        document: dict. The `preset.json`, or `None`.
        documents: `presets.Documents` of the preset.
        preset: str or `Path`. Its name, for messages.
        overridden: collection of str. Arguments of the caller.

    Raises:
        ValueError: if the sample is none, or the outputs differ.
    """
    if document is None:
        return
    document = presets.migrate_document(document)
    overridden = set(overridden) - _HARMLESS
    recorded = document.get("task", document.get("backbone"))
    if type(model).__name__ != recorded:
        model, overridden = getattr(model, "backbone", model), overridden - OF_A_HEAD
    if "sample" not in document or overridden or type(model).__name__ != recorded:
        return
    exact = is_exact(model.dtype_policy) and is_exact(_saved_policy(documents))
    difference = compare(model, document["sample"], f"preset '{preset}'")
    if not difference <= tolerance(exact):
        raise ValueError(
            f"Preset '{preset}' must give the outputs that were recorded when it was saved: its "
            "weights or its configuration were altered, or mean something else to this version. "
            "`check_sample=False` loads it all the same. "
            f"Received: outputs that differ by {difference:.1g} of the largest"
        )


def compare(model, sample, source):
    """Returns the largest difference of a model's outputs from recorded ones, over the largest.

    Args:
        model: a backbone or a task model.
        sample: dict of `inputs` and `outputs`, nested lists.
        source: str. Where it is from, for messages.

    Raises:
        ValueError: if these are no inputs and outputs of the model.
    """
    try:
        outputs, expected = run(model, sample), np.array(sample["outputs"], "float64")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"`sample` of {source} must hold `inputs` and `outputs` of the model. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if outputs.shape != expected.shape:
        raise ValueError(
            f"`sample` of {source} must hold outputs of shape {outputs.shape}. "
            f"Received: shape {expected.shape}"
        )
    return difference(outputs, expected)


def run(model, sample):
    """Returns the outputs of a model for a recorded sample, in NumPy float32."""
    inputs = np.array(sample["inputs"])
    inputs = inputs.astype("int32" if inputs.dtype.kind in "iu" else "float32")
    return keras.ops.convert_to_numpy(keras.ops.cast(model.sample_outputs(inputs), "float32"))


def difference(outputs, expected):
    """Largest difference relative to the largest of the expected; infinite between shapes."""
    if outputs.shape != expected.shape:
        return float("inf")
    return float(np.abs(outputs - expected).max() / max(np.abs(expected).max(), 1e-6))


def tolerance(exact):
    """The largest difference that passes, where all bits of a float32 count or not."""
    return _TOLERANCE if exact else _ROUNDED_TOLERANCE


def is_exact(policy):
    """Whether layers of a dtype policy compute with all bits of a float32."""
    quantised = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return not quantised and policy.compute_dtype in ("float32", "float64")


def _saved_policy(documents):
    return keras.dtype_policies.get(documents["config.json"]["config"].get("dtype"))
