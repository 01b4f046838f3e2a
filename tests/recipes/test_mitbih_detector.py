"""A detector of heart beats: what it learns from, what it finds, how that is scored, streaming."""

import keras
import numpy as np
import pytest

from keras_ssm.models import Detector
from keras_ssm.recipes.mitbih_detector import BEFORE, RECIPE, Windows, step_labels
from keras_ssm.signals import match_events
from keras_ssm.training import Beats, PanTompkins, beat_scores, beats_of
from tests.recipes.data_writers import beats as write_beats

pytestmark = pytest.mark.once("torch")

SMALL = {"hidden_dim": 8, "num_layers": 1, "batch_size": 3}


@pytest.fixture
def data(tmp_path, rng):
    write_beats(tmp_path, rng)
    return RECIPE.read(tmp_path)


@pytest.mark.parametrize("split", ["time", "patients"])
def test_stretches_hold_the_beats_that_were_annotated(data, split):
    settings = RECIPE.settings_of("s5", {"split": split})
    parts = RECIPE.arrange(data, settings)
    place = {"time": [2, 2, 2], "patients": [1, 1, 1]}[split]  # the paced record is out
    assert [len(part.signals) for part in parts] == place
    counted = [np.concatenate([b.places[b.places >= BEFORE] for b in part.beats]) for part in parts]
    assert sum(map(len, counted)) == 2 * 59 - 2 * 5  # a change of rhythm is no beat
    signal, beats = parts.test.signals[-1], parts.test.beats[-1]
    whole = data.train["signal"][1] - np.int16(1024)
    assert (signal[-4000:] == whole[-4000:]).all()
    assert set(beats.places - len(signal)) <= set(np.arange(1, 60) * 360 - len(whole))
    assert RECIPE.count("sensitivity of beats", parts.test) == len(counted[2])


def test_windows_say_at_which_step_a_beat_has_been_and_of_which_class(data):
    settings = RECIPE.settings_of("s5", {**SMALL, "window": 4.0, "delay": 0.06})
    train = RECIPE.arrange(data, settings).train
    windows = Windows(train, settings, seed=0, batches=2, classes=5)
    inputs, y, weights = windows[0]
    assert inputs["inputs"].shape == (3, 1440, 2) and y.shape == weights.shape == (3, 120)
    assert (weights[:, :30] == 0).all() and (weights[:, 30:] > 0).all()
    assert weights[y == 1].max() < weights[y == 3].max()  # the rarer class weighs more
    beats = Beats(np.array([100, 479]), np.array([1, 3]))
    labels = step_labels(beats, 600, stride=12, delay=22)
    assert np.flatnonzero(labels).tolist() == [122 // 12, 501 // 12] and labels[41] == 3
    repeated = beats_of(10.0 * np.eye(5)[labels], 12, on=0.5, quiet=2, delay=22)
    assert (
        abs(repeated.places - beats.places).max() <= 6 and (repeated.labels == beats.labels).all()
    )
    assert ((repeated.decided + 1) % 12 == 0).all()
    assert (repeated.decided - beats.places <= 22 + 2 * 12).all()


def test_a_beat_is_matched_once_and_by_the_nearer():
    pairs = match_events([90, 110, 300, 500], [100, 112, 290, 700], tolerance=54)
    assert pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert match_events([60, 101], [100], tolerance=54).tolist() == [[1, 0]]
    assert match_events([100], [60, 101], tolerance=54).tolist() == [[0, 1]]
    assert match_events([], [1], tolerance=54).shape == (0, 2)
    with pytest.raises(ValueError, match=r"`found`.*Received"):
        match_events([2, 1], [1], tolerance=1)


def test_scores_of_beats_by_hand():
    known = Beats(np.array([50, 1000, 2000, 3000, 4000]), np.array([1, 1, 2, 3, 1]))
    ours = Beats(
        np.array([60, 1010, 2010, 3500, 4000]),
        np.array([1, 1, 1, 3, 1]),
        np.array([90, 1036, 2036, 3536, 4072]),
    )
    scores = beat_scores([ours], [known], ("N", "S", "V"), tolerance=54, first=100, rate=360)
    assert scores["sensitivity of beats"] == pytest.approx(3 / 4)
    assert scores["positive predictivity of beats"] == pytest.approx(3 / 4)
    assert scores["sensitivity of N"] == 1.0 and scores["sensitivity of S"] == 0.0
    assert scores["positive predictivity of N"] == pytest.approx(2 / 3)
    assert scores["macro-F1"] == pytest.approx(0.8 / 3)
    assert scores["median of the delays in ms"] == pytest.approx(100.0)


@pytest.mark.parametrize("system", ["s5", "dss"])
def test_a_stream_decides_as_the_whole_signal_does(system, rng):
    settings = RECIPE.settings_of(system, {**SMALL, "on": 0.9})
    settings["state_dim"] = 16
    model = RECIPE.make_model(system, 0, settings)
    model.head.kernel.assign(9 * rng.standard_normal(model.head.kernel.shape))
    signal = rng.integers(-200, 200, (1206, 2)).astype("int16")
    whole = RECIPE.detect(model, signal, settings)
    assert len(whole.places) > 2
    on, quiet, delay = RECIPE.detection(settings)
    stream, detector, logits, events = model.stream(), Detector(on=on, refractory=quiet), [], []
    for chunk in np.split(signal, [5, 100, 101, 700]):
        logits.append(stream(chunk)[0])
        events += detector(1.0 - keras.ops.softmax(logits[-1])[:, 0]) if len(logits[-1]) else []
    events += detector.finish()
    pieces = beats_of(np.concatenate(logits), settings["encoder_stride"], on, quiet, delay)
    for part, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(part, other)
    places = np.round((np.array([event.peak for event in events]) + 0.5) * 12) - delay
    np.testing.assert_array_equal(places, whole.places)


@pytest.mark.parametrize("system", ["s5", "causal_cnn"])
def test_no_decision_waits_for_later_samples(system, rng):
    settings = RECIPE.settings_of(system, SMALL)
    settings |= {"state_dim": 16} if system == "s5" else {}
    model = RECIPE.make_model(system, 0, settings)
    x = rng.normal(size=(1, 480, 2)).astype("float32")
    other = x.copy()
    other[:, 241:] = 9.0
    mask = np.ones((1, 480), bool)
    before, after = (
        model.predict_on_batch({"inputs": part, "padding_mask": mask}) for part in (x, other)
    )
    assert before.shape == (1, 40, 5)
    np.testing.assert_allclose(before[:, :20], after[:, :20], atol=1e-5)
    assert abs(before[:, 20] - after[:, 20]).max() > 1e-4


def test_filters_and_a_threshold_find_clean_beats(rng):
    places = np.cumsum(rng.integers(250, 400, size=40))
    time = np.arange(places[-1] + 400)
    lead = np.exp(-(((time[:, None] - places) / 8.0) ** 2)).sum(axis=1)
    lead += 0.02 * rng.standard_normal(len(time)) + np.sin(time / 400.0)
    known = Beats(places, np.ones(40, int))
    found = PanTompkins(360.0)(lead)
    scores = beat_scores([found], [known], ("N",), tolerance=54, first=0, rate=360.0)
    assert scores["sensitivity of beats"] >= 39 / 40
    assert scores["positive predictivity of beats"] >= 38 / 40
    cut = len(time) // 2
    early = PanTompkins(360.0)(lead[:cut])
    count = int((found.decided < cut - 1).sum())
    # Nothing after it is read.
    np.testing.assert_array_equal(early.places[:count], found.places[:count])
