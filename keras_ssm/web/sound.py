"""From a sound file to the samples that a preset hears, and the answers meanwhile."""

import numpy as np

from keras_ssm import signals
from keras_ssm.models import SSMClassifier
from keras_ssm.types import PathLike
from keras_ssm.web.probabilities import softmax

QUIET = 0.05  # of the loudest sample: quieter ends are cut off
LONGEST = 5.0  # seconds
MARGIN = 0.02  # seconds that stay before and after


def prepared(path: PathLike, sampling_rate: float) -> np.ndarray:
    """Reads a sound file as recordings of spoken digits are: one voice, no silence around it.

    Args:
        path: str or `Path`. A WAV file; see `keras_ssm.signals.read_wav` for others.
        sampling_rate: float. Samples a second that the model hears.

    Returns:
        int16 array `(length,)`. Channels are averaged, a constant offset is taken away, other rates
        are resampled, and what is quieter than 5 % of the loudest sample is cut off at both ends.

    Raises:
        ValueError: for a file that is no recording, holds NaN, is silent, or is longer than five
            seconds without its silence.

    Example:
        ```python
        from scipy.io import wavfile
        tone = np.sin(np.arange(8000)) * np.hanning(8000)
        wavfile.write("tone.wav", 16000, (30000 * tone).astype("int16"))
        samples = keras_ssm.web.prepared("tone.wav", 8000)
        ```
    """
    recording = signals.read_wav(path)
    x = recording.samples.mean(axis=1)
    if not np.isfinite(x).all():
        raise ValueError(f"`path` must hold finite numbers. Received: NaN or infinity in '{path}'")
    x = x - np.median(x)
    loud = np.flatnonzero(np.abs(x) > QUIET * np.abs(x).max())
    if not len(loud):
        raise ValueError(f"`path` must be a recording of something. Received: silence in '{path}'")
    margin = round(MARGIN * recording.sampling_rate)
    x = x[max(0, loud[0] - margin) : loud[-1] + 1 + margin]
    if len(x) > LONGEST * recording.sampling_rate:
        raise ValueError(
            f"A digit must be said within {LONGEST:g} seconds. "
            f"Received: {len(x) / recording.sampling_rate:.1f} seconds"
        )
    x = signals.resample(x, recording.sampling_rate, sampling_rate)
    return np.clip(np.round(32767 * x), -32768, 32767).astype("int16")


def hear(model: SSMClassifier, samples: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Hears samples through a stream, a second at a time.

    Args:
        model: `SSMClassifier` of sound.
        samples: int16 array `(length,)`.
        sampling_rate: float. Samples a second.

    Returns:
        Probabilities after each step of the model, `(steps, classes)`.

    Raises:
        ValueError: for samples that are too few for a step.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(keras_ssm.layers.S4D(4), 1, hidden_dim=4)
        model = keras_ssm.models.SSMClassifier(backbone, num_classes=2)
        keras_ssm.web.hear(model, np.zeros(100, "int16"), 8000).shape  # (100, 2)
        ```
    """
    stream, size = model.stream(), max(1, round(sampling_rate))
    pieces = [stream(samples[i : i + size])[0] for i in range(0, len(samples), size)]
    logits = np.concatenate(pieces) if pieces else np.zeros((0, 1))
    if not len(logits):
        raise ValueError(
            f"`samples` must be enough for a step of the model. Received: {len(samples)} samples"
        )
    return softmax(logits)
