"""What a preset must do besides giving its recorded outputs; `tools/check_presets.py` asks too."""

import keras
import numpy as np

from keras_ssm.models import SSMCausalLM, SSMForecaster
from keras_ssm.models.saving import sample_check
from tests.backend_tools import relative_error


def stream_difference(model: keras.Model, rng: np.random.Generator) -> float | None:
    """How far the answers of a stream are from those of one pass; `None` if it cannot stream."""
    if isinstance(model, SSMForecaster):
        return _of_forecasts(model, rng)
    if not streams(model):
        return None
    if isinstance(model, SSMCausalLM):
        x = rng.integers(model.backbone.vocabulary_size, size=40)
    else:
        features = model.backbone.input_dim or 1
        x = rng.integers(0, 17, size=(40, features)).astype("float32")
    expected = model.predict(x[None], verbose=0)
    found = np.asarray(model.stream()(x))
    whole = model.has_step_outputs or isinstance(model, SSMCausalLM)
    return relative_error(found if whole else found[:, -1], expected)


def streams(model: keras.Model) -> bool:
    """Whether a model reads a sequence as it comes."""
    try:
        model.stream()
    except ValueError:
        return False
    return True


def _of_forecasts(model, rng):
    variables = len(model.fitted["center"][0])
    rows = rng.normal(size=(model.lookback + 8, variables))
    expected = model.predict(rows)
    if len(model.fitted["series"]) == 1:
        found = model.stream()(rows)[0, -1]
    else:  # units of a series are its own, and come from its first rows
        model.predict(rows[:-3])
        found = model.update(rows[-3:])
    return relative_error(found, expected) if found.shape == expected.shape else np.inf


def difference_in_eight_bits(model: keras.Model, sample: dict) -> float:
    """How far `quantize("int8")`, which stays, moves the outputs for a recorded sample."""
    outputs = sample_check.run(model, sample)
    model.quantize("int8")
    return sample_check.difference(sample_check.run(model, sample), outputs)


def is_small(difference: float, model: keras.Model) -> bool:
    """Whether eight bits moved the outputs, and by less than a fifth."""
    # Of a forecaster the shortcut may be all that speaks, and it stays as it is.
    return difference < 0.2 and (difference > 0 or isinstance(model, SSMForecaster))
