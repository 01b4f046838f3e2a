"""Spoken digits from the waveform: six voices, 8,000 samples a second, 0.1 to 2.3 seconds."""

from typing import NamedTuple

import keras
import numpy as np

from keras_ssm import signals
from keras_ssm.checks import check_choice
from keras_ssm.layers import RandomGain, RandomNoise, RandomShift
from keras_ssm.models import SequencePreprocessor, SSMClassifier
from keras_ssm.training import (
    S4_FAMILY,
    ClassificationRecipe,
    Part,
    Splits,
    log_mel_cnn,
    log_mel_lstm,
    waveform_cnn,
)

RATE = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

DESCRIPTION = (
    "A classifier of spoken digits that reads the raw waveform. It shows sound files, resampling, "
    "streaming and another sampling rate without training."
)

EXAMPLE = """\
import numpy as np

clips = [np.zeros(4000, "int16"), np.zeros(3000, "int16")]  # or paths of sound files
print(model.predict(clips, verbose=0).argmax(axis=-1))"""

OWN_FILE = """\
# One spoken digit in a WAV file, of any sampling rate.
print(model.predict(["digit.wav"], verbose=0).argmax(axis=-1))"""

LIMITS = (
    "Inputs are one English digit, spoken close to a microphone, with little silence around it. "
    "The six voices of the test part are those of the training part: with a voice that it has not "
    "heard the model is clearly worse."
)

DATA_LICENCE = "Free Spoken Digit Dataset, Z. Jackson and others, CC BY-SA 4.0"

# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "ssm_learning_rate", "encoder_width", "encoder_stride", "augment")


class Recordings(NamedTuple):
    """All recordings: samples, digit, number of the speaker, number among those of a digit."""

    x: list
    digit: np.ndarray
    speaker: np.ndarray
    index: np.ndarray

    def part(self, rows, kind=Part):
        """Those of a boolean array of rows."""
        return kind([self.x[i] for i in np.flatnonzero(rows)], self.digit[rows])


class LastPart(Part):
    """The test part, which is read at half the rate as well."""

    def take(self, rows):
        return LastPart(*super().take(rows))


class SpokenDigits(ClassificationRecipe):
    """The official split: of each speaker and digit 0 to 4 are for the test, 5 to 9 validation.

    `held_out=theo` tests on a voice that was not learned from, which the official split does not.
    The score of the test part has the accuracy at half the sampling rate too, by dropping every
    other sample and after a low-pass filter, as the model is and `rescaled` to that rate.
    """

    name = "spoken_digits"
    classes = tuple("0123456789")
    scale = 1 / 32768
    settings = {
        "held_out": "nobody",
        "num_layers": 4,
        "hidden_dim": 64,
        "state_dim": 64,
        "encoder_width": 32,
        "encoder_stride": 4,
        "augment": True,
        "dropout": 0.1,
        "epochs": 40,
        "batch_size": 32,
        "lengths": 4,
        "learning_rate": 4e-3,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "select": "accuracy",
        "patience": 0,
    }
    systems = {
        **S4_FAMILY,
        "waveform_cnn": {"learning_rate": 2e-3, **dict.fromkeys(SYSTEM_SETTINGS)},
        "log_mel_cnn": {"learning_rate": 2e-3, **dict.fromkeys(SYSTEM_SETTINGS)},
        "lstm": {"num_layers": 1, "learning_rate": 2e-3, **dict.fromkeys(SYSTEM_SETTINGS)},
    }
    baselines = ("waveform_cnn", "log_mel_cnn", "lstm")
    of_backbone = {"encoder": "conv", "prenorm": True, "final_norm": "layer"}

    def read(self, directory):
        path = directory / "fsdd" / "fsdd_8khz_int16.npz"
        if not path.is_file():
            raise ValueError(
                f"The data must lie in '{path}': the recordings of the Free Spoken Digit Dataset "
                "as arrays `audio`, `offsets`, `label`, `speaker` and `index`. Received: no such "
                "file"
            )
        with np.load(path) as file:
            data = {name: file[name] for name in ("audio", "offsets", "label", "speaker", "index")}
        x = np.split(data["audio"], data["offsets"][1:-1])
        label, speaker, index = (data[key].astype(int) for key in ("label", "speaker", "index"))
        return Splits(Recordings(x, label, speaker, index), None, None)

    def arrange(self, splits, settings):
        recordings = splits.train
        check_choice("held_out", settings["held_out"], ("nobody", *SPEAKERS))
        validation, test = (recordings.index >= 5) & (recordings.index < 10), recordings.index < 5
        if settings["held_out"] != "nobody":
            test = recordings.speaker == SPEAKERS.index(settings["held_out"])
        validation &= ~test
        return Splits(
            recordings.part(~test & ~validation),
            recordings.part(validation),
            recordings.part(test, LastPart),
        )

    def make_model(self, system, seed, settings):
        if system in self.baselines:
            keras.utils.set_random_seed(seed)
            baseline_of = {
                "waveform_cnn": waveform_cnn,
                "log_mel_cnn": log_mel_cnn,
                "lstm": log_mel_lstm,
            }
            return baseline_of[system](len(self.classes), settings, self.scale)
        return super().make_model(system, seed, settings)

    def augmentation(self, seed, settings):
        if not settings["augment"]:
            return None
        return [
            RandomGain(0.3, 3.0, seed=seed),
            RandomShift(RATE // 20, seed=seed + 1),
            RandomNoise(0.05, seed=seed + 2),
        ]

    def make_preprocessor(self, settings):
        return SequencePreprocessor(scale=self.scale, sampling_rate=RATE, mono=True)

    def score(self, model, part, settings):
        scores = super().score(model, part, settings)
        if not isinstance(part, LastPart):
            return scores
        rows = [x.astype("float32") for x in part.x]
        halves = {
            "decimated": [x[::2] for x in rows],
            "low-pass": [signals.resample(x, RATE, RATE // 2) for x in rows],
        }
        models = {"": model}
        if isinstance(model, SSMClassifier):
            models[", rescaled"] = model.rescaled(2)
        for filtering, x in halves.items():
            for suffix, reader in models.items():
                logits = self.logits(reader, Part(x, part.y), settings)
                accuracy = float((logits.argmax(axis=1) == part.y).mean())
                scores[f"accuracy at half rate, {filtering}{suffix}"] = accuracy
        return scores

    def count(self, metric, part):
        return part.size if metric.startswith("accuracy") else None

    def preset_name(self, system, settings):
        voice = settings["held_out"]
        return f"{system}_{self.name}" + (f"_{voice}" if voice != "nobody" else "")

    def facts(self, system, settings):
        voice = settings["held_out"]
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "audio-classification",
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": "Free Spoken Digit Dataset",
                "source": "Jakobovski/free-spoken-digit-dataset",
                "split": (
                    "official: of each speaker and digit recordings 0 to 4 are the test part and 5 "
                    "to 9 validation"
                    if voice == "nobody"
                    else f"the voice of {voice} is the test part"
                ),
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


RECIPE = SpokenDigits()
