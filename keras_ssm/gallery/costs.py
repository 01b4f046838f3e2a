"""What a preset costs in use: a streamed step, and eight bits in place of 32."""

import itertools
import time

import keras
import numpy as np

from keras_ssm.gallery.subject import Subject
from keras_ssm.layers import DSS
from keras_ssm.models import SSMForecaster
from keras_ssm.models.forecasting.reading import Reading
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.training.results import origin

STEPS, WARM_UP = 200, 20
LONGEST = 2.0  # seconds, after which no further step is timed


def step_cost(model: keras.Model, sample: np.ndarray) -> dict:
    """Returns what one streamed step of a model costs.

    Args:
        model: a task model that streams, or a forecaster that updates by new rows.
        sample: array, one sample as `model.stream()` takes it.

    Returns:
        Dict of `microseconds`, the processor time of a step, the median of up to 200, `samples`,
        how many it reads, more than one where the encoder strides, `state_bytes`, what is
        remembered of one sequence, `backend` and `machine`.

    Raises:
        ValueError: if the model does not stream.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        print(keras_ssm.gallery.step_cost(model, np.uint8(3)))
        ```
    """
    # Fewer samples than a stride make no step: they wait, and cost next to nothing.
    samples = samples_of(model)
    sample = sample if samples == 1 else np.repeat(np.atleast_1d(sample), samples, axis=0)
    step, parts = _by_update(model, sample) if updates(model) else _by_stream(model)
    for _ in range(WARM_UP):
        step(sample)
    # Processor time, so that other programs disturb little.
    seconds, began = [], time.process_time()
    while len(seconds) < STEPS and time.process_time() - began < LONGEST:
        start = time.process_time()
        step(sample)
        seconds.append(time.process_time() - start)
    environment = origin()
    return {
        "microseconds": round(1e6 * float(np.median(seconds))),
        "samples": samples,
        "state_bytes": int(sum(np.asarray(_array(part)).nbytes for part in parts().values())),
        "backend": environment["backend"],
        "machine": environment["machine"],
    }


def samples_of(model: keras.Model) -> int:
    """How many samples a streamed step reads."""
    return 1 if updates(model) else model.backbone.stride


def updates(model: keras.Model) -> bool:
    """Whether a model reads new rows by `update`: a forecaster of series with different units."""
    return isinstance(model, SSMForecaster) and len(model.fitted["series"]) > 1


def _by_stream(model):
    stream, steps_read = model.stream(), itertools.count(1)
    lengths = [
        block.mixer.softmax_length
        for block in model.backbone.blocks
        if isinstance(block.mixer, DSS)
    ]
    longest = min(filter(None, lengths), default=None)

    def step(sample):
        if longest is not None and next(steps_read) % longest == 0:
            stream.reset()
        return stream(sample)

    return step, stream.parts


def _by_update(model, sample):
    model.predict(np.repeat(sample, 2 * model.lookback, axis=0))
    return model.update, Reading(model, sample.shape[-1]).arrays


def in_eight_bits(subject: Subject) -> dict:
    """Returns the main score of a preset after `quantize("int8")`: its `metric` and `value`."""
    model = load_model(subject.directory)
    model.quantize("int8")
    scores = subject.recipe.score(model, subject.part, subject.settings)
    metric = next(iter(scores))
    return {"metric": metric, "value": float(f"{scores[metric]:.6g}")}


def _array(part):
    return part if isinstance(part, np.ndarray) else keras.ops.convert_to_numpy(part)
