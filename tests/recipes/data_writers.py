"""Small data in the formats that recipes read, of the sizes that they ask for."""

import gzip

import numpy as np

from keras_ssm.recipes.tinyshakespeare import BYTES


def vowels(directory, rng):
    """A few rows of each speaker in the format of aeon."""
    for part in ("TRAIN", "TEST"):
        rows = []
        for speaker in range(1, 10):
            for _ in range(3):
                x = rng.standard_normal((12, rng.integers(7, 30))).round(4)
                rows.append(":".join(",".join(map(str, row)) for row in x) + f":{speaker}")
        text = "\n".join(["@problemName JapaneseVowels", "@data", *rows, ""])
        path = directory / "japanese_vowels" / f"JapaneseVowels_{part}.ts.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))


def mnist(directory, rng):
    """Images of noise in the format of MNIST."""
    (directory / "mnist").mkdir()
    for part, count in (("train", 100), ("t10k", 20)):
        pixels = rng.integers(256, size=count * 784, dtype="uint8").tobytes()
        labels = (np.arange(count) % 10).astype("uint8").tobytes()
        for kind, header, content in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            path = directory / "mnist" / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(bytes(header) + content, 1))


def plays(directory, rng):
    """As many bytes as there are of the plays."""
    (directory / "tinyshakespeare").mkdir()
    text = rng.integers(97, 123, size=BYTES, dtype="uint8").tobytes()
    (directory / "tinyshakespeare" / "input.txt.gz").write_bytes(gzip.compress(text, 1))


def hours(directory, rng):
    """As many hours as there are of the transformer."""
    (directory / "ett").mkdir()
    numbers = rng.standard_normal((14_400, 7)).round(3)
    lines = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"]
    lines += ["2016-07-01 00:00:00," + ",".join(map(str, row)) for row in numbers]
    (directory / "ett" / "ETTh1.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))


def one_record(directory, rng):
    """One record in place of ten."""
    (directory / "mitbih_subset").mkdir()
    signal = rng.integers(900, 1200, size=(1, 650_000, 2), dtype="int16")
    np.savez(directory / "mitbih_subset" / "mitbih_10rec_360hz.npz", signal=signal)


def digits(directory, rng):
    """Noise of different lengths as recordings of the spoken digits."""
    lengths = np.tile(rng.integers(300, 500, 20), 12)
    label, index = np.repeat(np.arange(10), 24), np.tile(np.arange(12), 20)
    (directory / "fsdd").mkdir()
    np.savez(
        directory / "fsdd" / "fsdd_8khz_int16.npz",
        audio=rng.integers(-9999, 9999, lengths.sum()).astype("int16"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        label=label.astype("uint8"),
        speaker=(np.arange(240) // 12 % 2).astype("uint8"),
        index=index.astype("uint8"),
    )


def beats(directory, rng):
    """Noise as records of hearts, a beat in each second."""
    places = np.arange(1, 60) * 360
    (directory / "mitbih_subset").mkdir()
    np.savez(
        directory / "mitbih_subset" / "mitbih_10rec_360hz.npz",
        signal=rng.integers(900, 1100, (3, 61 * 360, 2)).astype("int16"),
        record=np.int16([106, 100, 104]),
        ann_record=np.repeat(np.uint8([0, 1, 2]), len(places)),
        ann_sample=np.tile(places, 3).astype("int32"),
        ann_symbol=np.tile(np.array(list("NNAVNNNAV+"))[np.arange(len(places)) % 10], 3),
    )


def photographs(directory, rng):
    """Grey images of noise, in two files."""
    (directory / "cifar10_grey").mkdir()
    for i, count in ((1, 30), (2, 30)):
        arrays = {
            "x": rng.integers(256, size=(count, 32, 32), dtype="uint8"),
            "y": (np.arange(count) % 10).astype("uint8"),
        }
        if i == 2:
            arrays |= {"test_x": arrays["x"][:10], "test_y": arrays["y"][:10]}
        np.savez(directory / "cifar10_grey" / f"cifar10_grey_{i}.npz", **arrays)


def nothing(directory, rng):
    """Expressions are generated."""


WRITERS = {"japanese_vowels": vowels, "sequential_mnist": mnist, "tinyshakespeare": plays}
WRITERS |= {"etth1": hours, "ecg_ahead": one_record, "mitbih": beats, "spoken_digits": digits}
WRITERS |= {"mitbih_detector": beats}
WRITERS |= {"grey_cifar": photographs, "listops": nothing}
