import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_ssm.types import PathLike

WAV = (b"RIFF", b"RIFX", b"RF64")


class Recording(NamedTuple):
    """A recording.

    Fields:
        samples: float32 array `(length, channels)`, from -1 to 1.
        sampling_rate: int. Samples a second.
    """

    samples: np.ndarray
    sampling_rate: int


def read_wav(path: PathLike) -> Recording:
    """Reads a WAV file; with soundfile installed also FLAC, OGG, MP3 and its other formats.

    Integers of 8 to 32 bits become floats from -1 to 1 by their full range. Floats stay.

    Args:
        path: str or `Path`.

    Returns:
        `Recording`.

    Raises:
        ValueError: for a file that is missing, empty, cut short or no recording.
        ImportError: for another format than WAV if soundfile is not installed.

    Example:
        ```python
        from scipy.io import wavfile
        wavfile.write("tone.wav", 8000, np.zeros(4000, "int16"))
        samples, sampling_rate = keras_ssm.signals.read_wav("tone.wav")  # (4000, 1), 8000
        ```
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path` must be a sound file. Received: no file '{path}'")
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        raise ValueError(f"`path` must be a sound file. Received: '{path}', which is empty")
    try:
        samples, rate = _wav(path) if head[:4] in WAV else _other(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the readers raise errors of many kinds for damaged files
        raise ValueError(
            f"`path` must be a whole sound file. Received: '{path}': {error}"
        ) from error
    if not samples.size or rate < 1:
        raise ValueError(
            "`path` must be a sound file with samples. "
            f"Received: '{path}' with {len(samples)} samples at {rate} Hz"
        )
    samples = samples if samples.ndim == 2 else samples[:, None]
    return Recording(np.ascontiguousarray(full_scale(samples)), int(rate))


def full_scale(x: np.ndarray) -> np.ndarray:
    """Integers of audio as float32 from -1 to 1, by the range of their type; floats stay.

    Raises:
        ValueError: for integers that audio does not come in, such as 64 bits, whose range is not
            known.
    """
    x = np.asarray(x)
    if x.dtype.kind == "f":
        return x if x.dtype == "float64" else x.astype("float32")
    if x.dtype == "uint8":
        return ((x.astype("float32") - 128) / 128).astype("float32")
    if x.dtype in ("int16", "int32"):
        return (x / -float(np.iinfo(x.dtype).min)).astype("float32")
    raise ValueError(
        "Samples of audio must be floats, int16, int32 or uint8, which tell their full range; a "
        f"`scale` is the factor for others. Received: dtype {x.dtype}"
    )


def _wav(path):
    from scipy.io import wavfile

    with warnings.catch_warnings():
        # Files that end too early are read as far as they go, with a warning.
        warnings.simplefilter("error", wavfile.WavFileWarning)
        warnings.filterwarnings("ignore", message="Chunk .* not understood")
        try:
            rate, samples = wavfile.read(path)
        except ValueError as error:
            if "format" not in str(error).lower():
                raise
            samples, rate = _other(path)  # other encodings, such as A-law
    return samples, rate


def _other(path):
    try:
        import soundfile
    except ImportError as error:
        raise ImportError(
            f"'{path}' is no plain WAV file; other formats are read by soundfile: "
            "pip install 'keras-ssm[audio]'"
        ) from error
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate
