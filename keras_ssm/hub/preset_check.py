"""Compares the outputs of a preset with those recorded when it was saved."""

import numpy as np

from keras_ssm import presets
from keras_ssm.models.saving import sample_check
from keras_ssm.models.saving.preset_loading import load_model

# Relative to the largest output. Backends differ by 1e-5; in half or eight bits by more.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-4}
_COARSE = 3e-2


def check(directory):
    """Loads a preset on the current backend, runs its sample and compares with the record.

    Args:
        directory: `Path`. A preset.

    Returns:
        Tuple of the outputs, a NumPy array, and their largest difference from the recorded ones,
        relative to the largest of these.

    Raises:
        ValueError: if the preset is not valid, holds no sample, or computes something else.
    """
    document = presets.verify(directory)
    sample = document.get("sample")
    if not sample:
        raise ValueError(
            f"Preset '{directory}' must hold recorded outputs: load it and save it again. "
            "Received: preset.json without 'sample'"
        )
    dtype = _saved_dtype(directory)
    outputs = run(directory, dtype)
    expected = np.asarray(sample["outputs"], "float32")
    tolerance = _TOLERANCE.get(dtype, _COARSE)
    error = sample_check.difference(outputs, expected)
    if not error <= tolerance:
        raise ValueError(
            f"Preset '{directory}' must compute its recorded outputs to {tolerance:.0e} of the "
            f"largest. Received: a difference of {error:.1e}"
        )
    return outputs, error


def run(directory, dtype=None):
    """Returns the outputs of a verified preset for its sample.

    Args:
        directory: `Path`. A preset.
        dtype: str or `None`. Policy to load it with. Defaults to that it was saved with.
    """
    dtype = dtype or _saved_dtype(directory)
    model = load_model(
        directory, check_sample=False, **({} if dtype == "quantized" else {"dtype": dtype})
    )
    return sample_check.run(model, presets.read(directory)["sample"])


def _saved_dtype(directory):
    policy = presets.preset_files.read_json(directory / "config.json")["config"].get("dtype")
    if policy is None or isinstance(policy, str):
        return policy or "float32"
    return policy["config"]["name"] if policy["class_name"] == "DTypePolicy" else "quantized"
