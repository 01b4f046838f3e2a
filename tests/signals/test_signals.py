"""Signals from files, and other sampling rates."""

import sys

import numpy as np
import pytest
from scipy.io import wavfile

from keras_ssm import signals

pytestmark = pytest.mark.once("torch")


def test_resampling_keeps_what_both_rates_can_hold():
    def tone(rate, hertz=50.0):
        t = np.arange(round(rate)) / rate
        return 3.0 + np.sin(2 * np.pi * hertz * t) * np.sin(np.pi * t) ** 2

    for rate, new_rate in ((1000, 500), (500, 1000), (441, 480), (360.0, 250), (128.5, 257)):
        found = signals.resample(np.stack([tone(rate), -tone(rate)], axis=1), rate, new_rate)
        expected = tone(new_rate)
        count = min(len(found), len(expected))
        assert abs(len(found) - len(expected)) <= 1 and found.dtype == "float64"
        np.testing.assert_allclose(found[:count, 0], expected[:count], atol=0.01)
        np.testing.assert_allclose(found[:, 1], -found[:, 0], atol=1e-9)
    # Frequencies that the lower rate cannot hold are gone, and fold to no other frequency.
    high = signals.resample(tone(1000, 400.0).astype("float32"), 1000, 500)
    assert high.dtype == "float32" and np.abs(high[50:-50] - 3.0).max() < 0.01
    x = np.zeros(5)
    assert signals.resample(x, 8000, 8000) is x
    for wrong in ((x, 0, 1), (x[:0], 1, 2), (x[None, None], 1, 2), (x + 0j, 1, 2), (x, 1, np.pi)):
        with pytest.raises(ValueError, match=r"Received: "):
            signals.resample(*wrong)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int16", -1, 32767 / 32768), ("int32", -1, 1), ("uint8", -1, 127 / 128), ("float64", -1, 1)],
)
def test_every_width_of_sample_has_its_full_range(tmp_path, dtype, low, high):
    ends = [-1.0, 1.0] if dtype == "float64" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    wavfile.write(tmp_path / "x.wav", 8000, np.array(ends, dtype))
    samples, rate = signals.read_wav(str(tmp_path / "x.wav"))
    assert samples.shape == (2, 1) and rate == 8000
    np.testing.assert_allclose(samples[:, 0], [low, high], atol=1e-7)


def test_other_formats_are_read_by_soundfile(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    x = np.linspace(-0.5, 0.5, 400)[:, None]
    for name, kind in (("x.flac", "PCM_16"), ("law.wav", "ALAW"), ("wide.wav", "PCM_24")):
        soundfile.write(tmp_path / name, x, 8000, subtype=kind)
        samples, rate = signals.read_wav(tmp_path / name)
        assert rate == 8000
        np.testing.assert_allclose(samples, x, atol=0.02 if kind == "ALAW" else 1e-4)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    signals.read_wav(tmp_path / "wide.wav")
    for name in ("x.flac", "law.wav"):
        with pytest.raises(ImportError, match=r"keras-ssm\[audio\]"):
            signals.read_wav(tmp_path / name)


def test_records_of_physionet(tmp_path, monkeypatch):
    wfdb = pytest.importorskip("wfdb")
    monkeypatch.chdir(tmp_path)
    ecg = np.stack([np.sin(np.arange(720) / 30), np.cos(np.arange(720) / 30)], axis=1)
    ecg[5, 1] = np.nan
    wfdb.wrsamp(
        "100", fs=360, units=["mV", "mV"], sig_name=["MLII", "V5"], p_signal=ecg, fmt=["16", "16"]
    )
    symbols = ["+", "N", "L", "A", "V", "F", "/", "~"]
    wfdb.wrann("100", "atr", np.arange(10, 18) * 20, np.array(symbols))
    record = signals.read_record(tmp_path / "100.hea", annotator="atr")
    assert record.leads == ("MLII", "V5") and record.units == ("mV", "mV")
    assert record.sampling_rate == 360.0 and record.samples.shape == (720, 2)
    np.testing.assert_allclose(record.samples, ecg, atol=1e-3)
    assert record.classes == (None, "N", "N", "S", "V", "F", "Q", None)
    assert record.places.tolist() == (np.arange(10, 18) * 20).tolist()
    assert signals.read_record("100").symbols is None
    (tmp_path / "100.dat").write_bytes(b"12")
    for name, annotator in (("101", None), ("100", "qrs"), ("100", None)):
        with pytest.raises(ValueError, match="`path` must be"):
            signals.read_record(name, annotator)
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(ImportError, match=r"keras-ssm\[ecg\]"):
        signals.read_record("100")
