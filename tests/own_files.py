"""Files as a person would have them, which the code in the cards reads: into this directory."""

import numpy as np
import pytest


def vowel(rng):
    np.savetxt("vowel.csv", rng.normal(size=(15, 12)), delimiter=",")


def hours(rng):
    lines = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"]
    for i, row in enumerate(20 + rng.normal(size=(400, 7))):
        numbers = ",".join(f"{value:.3f}" for value in row)
        lines.append(f"2016-07-{1 + i // 24:02} {i % 24:02}:00:00,{numbers}")
    with open("hours.csv", "w") as file:
        file.write("\n".join(lines))


def heart(rng):
    wfdb = pytest.importorskip("wfdb")
    places = np.arange(1, 20) * 300
    leads = rng.normal(0, 0.1, (6000, 2))
    leads[places] += 1.0
    names = {"units": ["mV", "mV"], "sig_name": ["MLII", "V1"], "fmt": ["212", "212"]}
    wfdb.wrsamp("100", fs=360, p_signal=leads, **names)
    wfdb.wrann("100", "atr", places, np.array(["N"] * len(places)))


def digit(rng):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(rng.integers(256, size=(100, 80), dtype="uint8")).save("digit.png")


def word(rng):
    from scipy.io import wavfile

    wavfile.write("digit.wav", 16000, rng.integers(-9999, 9999, 8000).astype("int16"))


def scene(rng):
    with open("scene.txt", "w", encoding="utf-8") as file:
        file.write("MARIANA:\nWhat news of the duke?\nISABELLA:\nNone.\n" * 3)


def write_all():
    """Writes each of them."""
    for write in (vowel, hours, heart, digit, word, scene):
        write(np.random.default_rng(0))
