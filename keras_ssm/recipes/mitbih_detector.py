"""A detector of heart beats that reads two leads as they come and says of which class each is."""

from typing import NamedTuple

import keras
import numpy as np

from keras_ssm.checks import check_choice
from keras_ssm.layers import RandomGain
from keras_ssm.models import SequencePreprocessor, SSMClassifier
from keras_ssm.recipes.mitbih import BASELINE, DATA_LICENCE, LEARNED, PACED, RATE, read_records
from keras_ssm.signals import aami_class
from keras_ssm.training import (
    S4_FAMILY,
    ClassificationRecipe,
    EpochData,
    PanTompkins,
    Splits,
    causal_cnn,
    one_epoch,
)
from keras_ssm.training.beat_events import Beats, beat_scores, beats_of

TOLERANCE = round(0.15 * RATE)  # samples within which a beat counts as found, by EC57
BEFORE = 10 * RATE  # samples that are read before the first beat that counts

DESCRIPTION = (
    "A detector of heart beats for a signal that is still coming: at each step it says whether a "
    "beat has just been, and of which class. It shows streaming, events and unequal classes."
)

EXAMPLE = """\
import numpy as np

signal = np.zeros((3600, 2), "int16")  # two leads, in units of 5 microvolts from the baseline
stream, detector = model.stream(), keras_ssm.models.Detector(on={on}, refractory={refractory})
for chunk in np.split(signal, 10):
    logits = stream(chunk)  # (1, steps, 5), a step for {stride} samples
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    print(detector(1 - weights[..., 0] / weights.sum(axis=-1)))"""

OWN_FILE = """\
import numpy as np

record = keras_ssm.signals.read_record("100")  # 100.hea and 100.dat; 360 samples a second
signal = np.nan_to_num(record.samples[:, :2]) * 200  # millivolts to units of 5 microvolts
signal = keras_ssm.signals.resample(signal, record.sampling_rate, {rate})
logits = model.stream()(signal)[0]
weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
detector = keras_ssm.models.Detector(on={on}, refractory={refractory})
for beat in detector(1 - weights[:, 0] / weights.sum(axis=-1)):
    seconds = ((beat.peak + 0.5) * {stride} / {rate}) - {delay}
    print(f"{{seconds:.2f}} s", model.class_names[1 + logits[beat.peak, 1:].argmax()])"""

LIMITS = (
    "Not a medical device. It has learned from a few records and is tested on {what}. Paced hearts "
    "are left out, and the leads must be those of the records."
)

# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "ssm_learning_rate", "augment")
TRAINING_SETTINGS = (
    "num_layers",
    "hidden_dim",
    "encoder_width",
    "encoder_stride",
    "delay",
    "window",
)
TRAINING_SETTINGS += ("dropout", "batch_size", "steps", "balance", "learning_rate", "weight_decay")
TRAINING_SETTINGS += ("warmup", "select", "patience", "on", "refractory")


class Signals(NamedTuple):
    """Stretches of records, each with its beats.

    Fields:
        signals: list of int16 arrays `(length, 2)`.
        beats: list of `Beats`, whose places count from the beginning of a stretch.
        first: int. Sample before which no beat counts.
    """

    signals: list
    beats: list
    first: int


class Windows(EpochData):
    """Windows at random places, with a class for each step: 0, or that of the beat just past.

    Steps within the first second of a window weigh nothing, since what was before it is not known
    there. The others weigh as much as their class is frequent to the power of `-balance`.

    Args:
        part: `Signals`.
        settings: dict.
        seed, batches: see `EpochData`.
        classes: int. Number of classes.
    """

    def __init__(self, part: Signals, settings: dict, seed: int, batches: int, classes: int):
        super().__init__(seed, batches)
        self.stride = settings["encoder_stride"]
        self.length = round(settings["window"] * RATE) // self.stride * self.stride
        self.rows = settings["batch_size"]
        self.part = part
        delay = round(settings["delay"] * RATE)
        self.labels = [
            step_labels(beats, len(signal), self.stride, delay)
            for signal, beats in zip(part.signals, part.beats, strict=True)
        ]
        counts = np.bincount(np.concatenate(self.labels), minlength=classes)
        frequencies = np.clip(counts / counts.sum(), 1e-4, None)
        weights = frequencies ** -settings["balance"]
        self.weights = (weights / (weights * frequencies).sum()).astype("float32")

    def batch(self, rng):
        steps, x, y = self.length // self.stride, [], []
        for row in rng.integers(len(self.part.signals), size=self.rows):
            signal, labels = self.part.signals[row], self.labels[row]
            start = rng.integers(len(labels) - steps + 1)
            x.append(signal[start * self.stride : start * self.stride + self.length])
            y.append(labels[start : start + steps])
        x, y = np.stack(x).astype("float32"), np.stack(y)
        weights = self.weights[y]
        weights[:, : RATE // self.stride] = 0.0
        inputs = {"inputs": x, "padding_mask": np.ones(x.shape[:2], bool)}
        return inputs, y, weights


class MITBIHDetector(ClassificationRecipe):
    """`split=time` and `split=patients` as in the recipe `mitbih`, of all beats but paced ones.

    A beat is found where one that was annotated lies within 150 ms, each of them once; the
    sensitivity and positive predictivity of all beats do not ask for its class, those of a class
    do. The delay is the time from the peak of a beat to the end of the step in which it is
    decided. `macro-F1` is the mean F1 of N, S and V.
    """

    name = "mitbih_detector"
    classes = ("no beat", "N", "S", "V", "other")
    input_dim = 2
    scale = 1 / 200  # of units to millivolts
    pooling = None
    rising = ("macro-F1",)
    settings = {
        "split": "time",
        "num_layers": 4,
        "hidden_dim": 48,
        "state_dim": 64,
        "encoder_width": 36,
        "encoder_stride": 12,
        "augment": True,
        "dropout": 0.1,
        "window": 10.0,
        "delay": 0.06,
        "on": 0.5,
        "refractory": 0.15,
        "epochs": 20,
        "steps": 60,
        "batch_size": 16,
        "balance": 0.5,
        "learning_rate": 4e-3,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "select": "macro-F1",
        "patience": 0,
    }
    systems = {
        "s5": {},
        **S4_FAMILY,
        "causal_cnn": {
            "num_layers": 6,
            "hidden_dim": 40,
            "learning_rate": 2e-3,
            **dict.fromkeys(SYSTEM_SETTINGS),
        },
        "pan_tompkins": {"epochs": 1, **dict.fromkeys((*SYSTEM_SETTINGS, *TRAINING_SETTINGS))},
    }
    baselines = ("causal_cnn", "pan_tompkins")
    of_backbone = {"encoder": "conv", "prenorm": True, "final_norm": "layer"}

    def read(self, directory):
        return Splits(read_records(directory), None, None)

    def arrange(self, splits, settings):
        check_choice("split", settings["split"], ("time", "patients"))
        data, patients = splits.train, settings["split"] == "patients"
        parts = [Signals([], [], BEFORE) for _ in range(3)]
        for row, record in enumerate(data["record"]):
            if record in PACED:
                continue
            signal = data["signal"][row].astype("int16") - np.int16(BASELINE)
            beats = self._beats(data, row)
            learned = record in LEARNED
            ends = [0.0, 0.8, 1.0] if patients else [0.0, 0.6, 0.8, 1.0]
            if patients and not learned:
                ends = [0.0, 1.0]
            edges = [round(end * len(signal)) for end in ends]
            first = 2 if patients and not learned else 0
            for part, start, end in zip(parts[first:], edges, edges[1:], strict=False):
                padded = np.pad(signal[max(0, start - BEFORE) : end], _edges(start), mode="edge")
                inside = beats.between(start - BEFORE, end)
                part.signals.append(padded)
                part.beats.append(Beats(inside.places - start + BEFORE, inside.labels))
        return Splits(*parts)

    def _beats(self, data, row):
        of_record = data["ann_record"] == row
        names = [aami_class(symbol) for symbol in data["ann_symbol"][of_record]]
        places = data["ann_sample"][of_record].astype("int64")
        labels = [self.classes.index(name if name in "NSV" else "other") for name in names if name]
        return Beats(places[[name is not None for name in names]], np.array(labels, "int64"))

    def limited(self, splits, limit, settings):
        def short(part):
            length = part.first + 20 * RATE * limit
            return Signals(
                [signal[:length] for signal in part.signals[:3]],
                [beats.between(0, length) for beats in part.beats[:3]],
                part.first,
            )

        return Splits(*map(short, splits))

    def make_model(self, system, seed, settings):
        if system == "pan_tompkins":
            return PanTompkins(RATE)
        if system == "causal_cnn":
            keras.utils.set_random_seed(seed)
            return causal_cnn(self.input_dim, len(self.classes), settings, self.scale)
        return super().make_model(system, seed, settings)

    def augmentation(self, seed, settings):
        return [RandomGain(0.5, 2.0, seed=seed)] if settings["augment"] else None

    def make_preprocessor(self, settings):
        return SequencePreprocessor(scale=self.scale, sampling_rate=RATE)

    def training_data(self, splits, seed, settings):
        return Windows(splits.train, settings, seed, settings["steps"], len(self.classes))

    def fit(self, model, splits, seed, settings, callbacks, limit=None):
        if isinstance(model, PanTompkins):  # learns nothing
            with one_epoch(callbacks):
                return
        super().fit(model, splits, seed, settings, callbacks, limit)

    def prepare(self, model, settings, steps):
        super().prepare(model, settings, steps)
        loss, optimizer = model.loss, model.optimizer
        model.compile(optimizer=optimizer, loss=loss, metrics=[])  # most steps are no beat

    def detect(self, model, signal, settings):
        """The beats that a model finds in a signal, `(length, 2)` in units."""
        if isinstance(model, PanTompkins):
            return model(signal[:, 0] * self.scale)
        stride = settings["encoder_stride"]
        x = signal[None, : len(signal) // stride * stride]
        if isinstance(model, SSMClassifier):
            logits = model.predict(x, verbose=0)
        else:
            mask = np.ones(x.shape[:2], bool)
            logits = model.predict_on_batch({"inputs": x.astype("float32"), "padding_mask": mask})
        return beats_of(np.asarray(logits)[0], stride, *self.detection(settings))

    @staticmethod
    def detection(settings):
        """Threshold, steps after a beat without another, and delay in samples."""
        quiet = round(settings["refractory"] * RATE / settings["encoder_stride"])
        return settings["on"], quiet, round(settings["delay"] * RATE)

    def score(self, model, part, settings):
        beats = [self.detect(model, signal, settings) for signal in part.signals]
        return beat_scores(
            beats, part.beats, self.classes[1:4], tolerance=TOLERANCE, first=part.first, rate=RATE
        )

    def count(self, metric, part):
        if not metric.startswith("sensitivity"):
            return None
        labels = np.concatenate([beats.labels[beats.places >= part.first] for beats in part.beats])
        name = metric.split()[-1]
        counted = labels > 0 if name == "beats" else labels == self.classes.index(name)
        return int(counted.sum()) or None

    def step_samples(self, part, settings):
        stride, delay = settings["encoder_stride"], round(settings["delay"] * RATE)
        samples = []
        for row in np.unique(np.linspace(0, len(part.signals) - 1, 3, dtype=int)):
            signal, beats = part.signals[row], part.beats[row]
            labels = step_labels(beats, len(signal), stride, delay)
            samples.append((signal[: len(labels) * stride], labels))
        return samples

    def preset_name(self, system, settings):
        return f"{system}_{self.name}" + "_patients" * (settings["split"] == "patients")

    def facts(self, system, settings):
        settings = {**self.settings, **settings}  # a baseline has few of them
        patients = settings["split"] == "patients"
        on, refractory, _ = self.detection(settings)
        words = {
            **{"on": on, "refractory": refractory, "stride": settings["encoder_stride"]},
            **{"rate": RATE, "delay": settings["delay"]},
        }
        what = "six patients of whom it has heard nothing" if patients else "the same patients"
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "other",
            "tags": ["ecg", "event-detection"],
            "example": EXAMPLE.format(**words),
            "own_file": OWN_FILE.format(**words),
            "limits": LIMITS.format(what=what),
            "data": {
                "name": "MIT-BIH Arrhythmia Database, 10 records",
                "source": "mengst/PQRST, PhysioNet",
                "split": (
                    "by patients, as de Chazal et al. (2004)"
                    if patients
                    else "in time: of each record the last 20 % are the test part"
                ),
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


def step_labels(beats: Beats, length: int, stride: int, delay: int) -> np.ndarray:
    """The label of each step of a signal: of the beat that was `delay` samples ago, or 0."""
    labels = np.zeros(length // stride, "int64")
    steps = (beats.places + delay) // stride
    inside = steps < len(labels)
    labels[steps[inside]] = beats.labels[inside]
    return labels


def _edges(start):
    """The padding of a stretch with fewer than `BEFORE` samples before it."""
    return [(max(0, BEFORE - start), 0), (0, 0)]


RECIPE = MITBIHDetector()
