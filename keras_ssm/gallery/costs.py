"""What a preset costs in use: a streamed step, and eight bits in place of 32."""

import time

import keras
import numpy as np

from keras_ssm.gallery.subject import Subject
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.training.results import origin

STEPS, WARM = 200, 20
LONGEST = 2.0  # seconds


def step_cost(model: keras.Model, sample: np.ndarray) -> dict:
    """Returns what one streamed step of a model costs, sample by sample.

    Args:
        model: a task model that streams.
        sample: array, one sample as `model.stream()` takes it.

    Returns:
        Dict of `microseconds`, the median over some hundred steps, `state_bytes`, what is
        remembered of one sequence, `backend` and `machine`.

    Raises:
        ValueError: if the model does not stream.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        print(keras_ssm.gallery.step_cost(model, np.uint8(3)))
        ```
    """
    stream = model.stream()
    for _ in range(WARM):
        stream(sample)
    seconds, began = [], time.perf_counter()
    while len(seconds) < STEPS and time.perf_counter() - began < LONGEST:
        start = time.perf_counter()
        stream(sample)
        seconds.append(time.perf_counter() - start)
    parts = stream.parts()
    found = origin()
    return {
        "microseconds": round(1e6 * float(np.median(seconds))),
        "state_bytes": int(sum(np.asarray(_array(part)).nbytes for part in parts.values())),
        "backend": found["backend"],
        "machine": found["machine"],
    }


def in_eight_bits(subject: Subject) -> dict:
    """Returns the main score of a preset after `quantize("int8")`: its `metric` and `value`."""
    model = load_model(subject.directory)
    model.quantize("int8")
    found = subject.recipe.score(model, subject.part, subject.settings)
    metric = next(iter(found))
    return {"metric": metric, "value": float(f"{found[metric]:.6g}")}


def _array(part):
    return part if isinstance(part, np.ndarray) else keras.ops.convert_to_numpy(part)
