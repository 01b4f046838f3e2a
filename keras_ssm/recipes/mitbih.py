"""Classes of heart beats, each read with the two seconds before it, in two leads."""

import keras
import numpy as np

from keras_ssm.checks import check_choice
from keras_ssm.models import SequencePreprocessor
from keras_ssm.signals import aami_class
from keras_ssm.training import (
    S4_FAMILY,
    ClassificationRecipe,
    Part,
    ShuffledRows,
    Splits,
    beat_cnn,
)

RATE, BASELINE = 360, 1024
SCORED = 3  # N, S and V: there is one F in the test part
PACED = (102, 104, 107, 217)
# P. de Chazal et al. (2004), of the records that are here.
LEARNED = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122)
LEARNED += (124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)

DESCRIPTION = (
    "A classifier of heart beats that reads the signal of two leads. It sees whether a beat comes "
    "too early by the beats before it, and shows biosignals, streaming and unequal classes."
)

EXAMPLE = """\
import numpy as np

# In units of 5 microvolts: two seconds before the peak of the beat, and 0.6 s after it.
beats = np.zeros((2, 936, 2), "int16")
print(model.predict(beats, verbose=0).argmax(axis=-1))"""

OWN_FILE = """\
import numpy as np

# 100.hea, 100.dat and the places of beats, 100.atr; needs the package wfdb.
record = keras_ssm.signals.read_record("100", annotator="atr")
signal = np.nan_to_num(record.samples[:, :2]) * 200  # millivolts to units of 5 microvolts
before, after = (round(s * record.sampling_rate) for s in ({before}, {after}))
rows = [
    signal[place - before : place + after]
    for place in record.places
    if before <= place <= len(signal) - after
]
inputs = {{"inputs": rows, "sampling_rate": record.sampling_rate}}
print(model.predict(inputs, verbose=0).argmax(axis=-1))  # 0, 1, 2, 3: N, S, V, F"""

LIMITS = (
    "Not a medical device. It has learned from a few records and is tested on {what}. The beats "
    "must have been found before, and the leads must be those of the records."
)

DATA_LICENCE = (
    "MIT-BIH Arrhythmia Database, G. Moody and R. Mark (2001), PhysioNet, A. Goldberger et al. "
    "(2000), ODC-By 1.0"
)

# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "ssm_learning_rate", "encoder_width", "encoder_stride", "pooling")


class Weighted(ShuffledRows):
    """Rows whose weight is the frequency of their class to the power of `-balance`."""

    balance = 0.5

    def augment(self, x, y, rng):
        frequencies = (
            np.bincount(self.part.y, minlength=int(self.part.y.max()) + 1) / self.part.size
        )
        weights = np.clip(frequencies, 1e-3, None) ** -self.balance
        weights /= (weights * frequencies).sum()
        return x, y, weights[y].astype("float32")


class MITBIH(ClassificationRecipe):
    """`split=time`: of each record the first 60 % for training, 20 % validation, 20 % test.

    `split=patients`: records of 2004 for training, of which the last fifth is validation, and the
    other records for the test: patients that the model has not seen. The score is the mean F1 of
    the classes N, S and V, with sensitivity and positive predictivity of each. There is no
    accuracy, since most beats are N. `beat_cnn` reads half a second around the peak and is told the
    times between beats, `cnn` reads what the systems read.
    """

    name = "mitbih"
    classes = ("N", "S", "V", "F")
    input_dim = 2
    scale = 1 / 200  # of units to millivolts
    rising = ("macro-F1",)
    settings = {
        "split": "time",
        "before": 2.0,
        "after": 0.6,
        "num_layers": 4,
        "hidden_dim": 64,
        "state_dim": 64,
        "encoder_width": 16,
        "encoder_stride": 4,
        "pooling": "last",
        "dropout": 0.1,
        "epochs": 30,
        "batch_size": 64,
        "balance": 0.5,
        "learning_rate": 4e-3,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "select": "macro-F1",
        "patience": 0,
    }
    systems = {
        **S4_FAMILY,
        "beat_cnn": {"learning_rate": 2e-3, "intervals": True, **dict.fromkeys(SYSTEM_SETTINGS)},
        "cnn": {
            **{"learning_rate": 2e-3, "intervals": False, "num_layers": 8, "hidden_dim": 40},
            **dict.fromkeys(SYSTEM_SETTINGS),
        },
    }
    baselines = ("beat_cnn", "cnn")
    of_backbone = {"encoder": "conv", "prenorm": True, "final_norm": "layer"}

    def read(self, directory):
        return Splits(read_records(directory), None, None)

    def arrange(self, splits, settings):
        check_choice("split", settings["split"], ("time", "patients"))
        data = splits.train
        signal = data["signal"].astype("int16") - np.int16(BASELINE)
        names = np.array([aami_class(symbol) or "-" for symbol in data["ann_symbol"]])
        row, place = data["ann_record"].astype(int), data["ann_sample"].astype(int)
        record = data["record"][row]
        # The times between all beats, of every class, then those beats that are learned.
        beats = np.flatnonzero((names != "-") & ~np.isin(record, PACED))
        intervals = _intervals(row[beats], place[beats])
        kept = np.isin(names[beats], self.classes)
        beats, intervals = beats[kept], intervals[kept]
        before, after = (round(settings[key] * RATE) for key in ("before", "after"))
        edges = [(0, 0), (before, after), (0, 0)]
        signal = np.pad(signal, edges, mode="edge")
        x = np.stack([signal[row[i], place[i] : place[i] + before + after] for i in beats])
        if settings.get("intervals"):  # a baseline that reads the times
            x = _with_intervals(x, intervals, before)
        y = np.array([self.classes.index(name) for name in names[beats]])
        share = place[beats] / data["signal"].shape[1]
        if settings["split"] == "time":
            part_numbers = np.digitize(share, [0.6, 0.8])
        else:
            learned = np.isin(record[beats], LEARNED)
            part_numbers = np.where(learned, (share >= 0.8).astype(int), 2)
        return Splits(*(Part(x[part_numbers == i], y[part_numbers == i]) for i in range(3)))

    def make_model(self, system, seed, settings):
        if system in self.baselines:
            keras.utils.set_random_seed(seed)
            return beat_cnn(self.input_dim, len(self.classes), settings, self.scale)
        return super().make_model(system, seed, settings)

    def make_preprocessor(self, settings):
        return SequencePreprocessor(scale=self.scale, sampling_rate=RATE)

    def training_data(self, splits, seed, settings):
        data = Weighted(splits.train, settings["batch_size"], seed)
        data.balance = settings["balance"]
        return data

    def prepare(self, model, settings, steps):
        super().prepare(model, settings, steps)
        loss, optimizer = model.loss, model.optimizer
        model.compile(optimizer=optimizer, loss=loss, metrics=[])  # an accuracy would mislead

    def score(self, model, part, settings):
        answers = self.logits(model, part, settings).argmax(axis=1)
        scores, all_f1 = {}, []
        for i, name in enumerate(self.classes[:SCORED]):
            correct = float(((answers == i) & (part.y == i)).sum())
            sensitivity = correct / max(1, int((part.y == i).sum()))
            predictivity = correct / max(1, int((answers == i).sum()))
            total = sensitivity + predictivity
            all_f1.append(2 * sensitivity * predictivity / total if total else 0.0)
            scores[f"sensitivity of {name}"] = sensitivity
            scores[f"positive predictivity of {name}"] = predictivity
        return {"macro-F1": float(np.mean(all_f1)), **scores}

    def count(self, metric, part):
        if metric.startswith("sensitivity"):
            return int((part.y == self.classes.index(metric[-1])).sum()) or None
        return None

    def preset_name(self, system, settings):
        return f"{system}_{self.name}" + "_patients" * (settings["split"] == "patients")

    def facts(self, system, settings):
        patients = settings["split"] == "patients"
        what = "six patients of whom it has heard nothing" if patients else "the same patients"
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "other",
            "tags": ["ecg", "sequence-classification"],
            "example": EXAMPLE,
            "own_file": OWN_FILE.format(before=settings["before"], after=settings["after"]),
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


def read_records(directory):
    """The arrays of the records: their signals, and the beats that were annotated."""
    path = directory / "mitbih_subset" / "mitbih_10rec_360hz.npz"
    if not path.is_file():
        raise ValueError(
            f"The data must lie in '{path}': records of the MIT-BIH Arrhythmia Database as arrays "
            "`signal`, `record`, `ann_record`, `ann_sample` and `ann_symbol`. Received: no such "
            "file"
        )
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _intervals(row, place):
    """Seconds from the beat before, and their share of the mean over the last ten, of each beat."""
    intervals = np.zeros((len(place), 2))
    for record in np.unique(row):
        rows = np.flatnonzero(row == record)
        seconds = np.diff(place[rows], prepend=place[rows][0] - RATE) / RATE
        sums = np.cumsum(seconds)
        counts = np.minimum(np.arange(1, len(rows) + 1), 10)
        means = (sums - np.concatenate([np.zeros(10), sums])[: len(rows)]) / counts
        intervals[rows] = np.stack([seconds, seconds / means], axis=1)
    return intervals


def _with_intervals(x, intervals, before):
    """Half a second around each peak, with its two times as further features, in units."""
    around = x[:, max(0, before - RATE // 4) : before + RATE // 4].astype("float32")
    times = np.repeat(200 * intervals[:, None].astype("float32"), around.shape[1], axis=1)
    return np.concatenate([around, times], axis=2)


RECIPE = MITBIH()
