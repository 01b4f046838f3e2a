"""Events in scores that come in chunks."""

import keras
import numpy as np
import pytest

from keras_ssm.models import Detection, Detector
from tests.models.streaming.small import LENGTH, make_model

pytestmark = pytest.mark.once("torch")


def by_definition(scores, on, off, min_length, refractory):
    """Step by step: `(start, end, peak)` of every event, one that goes on with the last step."""
    found, start, quiet = [], None, 0
    for t, score in enumerate([*scores, -np.inf]):
        if start is None and score >= on and t >= quiet:
            start = t
        elif start is not None and score < off:
            if t - start >= min_length:
                found.append((start, t, start + int(np.argmax(scores[start:t]))))
                quiet = t + refractory
            start = None
    return found


@pytest.mark.parametrize(("min_length", "refractory"), [(1, 0), (3, 0), (2, 9)])
def test_chunks_give_the_events_of_the_definition(min_length, refractory):
    rng = np.random.default_rng(min_length)
    noise = rng.standard_normal((2, 500, 3))
    scores = 0.5 + 0.25 * (noise[:, 1:] + noise[:, :-1])
    settings = {"on": 0.7, "off": 0.45, "min_length": min_length, "refractory": refractory}
    expected = {
        (row, label, *event)
        for row in range(2)
        for label in range(3)
        for event in by_definition(scores[row, :, label], **settings)
    }
    assert len(expected) > 60
    for size in (1, 7, 64, 1000):
        detector, found = Detector(**settings), []
        for i in range(0, scores.shape[1], size):
            found += detector(scores[:, i : i + size])
            if size == 64:  # it may be saved between any two chunks
                state, detector = detector.state, Detector(**settings)
                detector.state = state
        found += detector.finish()
        assert {event[:5] for event in found} == expected and len(found) == len(expected)
        assert all(event.score == scores[event.row, event.peak, event.label] for event in found)


def test_what_goes_on_is_seen_before_it_ends():
    detector = Detector(on=0.8, off=0.4, min_length=3)
    assert detector([0.1, 0.9]) == [] and detector.active == []
    detector([0.85, 0.95])
    assert detector.active == [Detection(0, 0, 1, None, 3, 0.95)]
    copy = detector.copy()
    low = keras.ops.convert_to_tensor([0.3], dtype="bfloat16")
    assert detector(low) == [Detection(0, 0, 1, 4, 3, 0.95)] and detector.active == []
    assert copy.active and copy.finish() == [Detection(0, 0, 1, 4, 3, 0.95)]
    assert copy.active == [] and copy([0.9] * 3) == [] and copy.active[0].start == 0


def test_rows_without_a_step_and_rows_that_begin_anew():
    detector = Detector(on=0.5)
    detector(np.array([[0.9, np.nan], [0.9, 0.9]]))
    detector.reset(rows=1)
    assert [event.row for event in detector.active] == [0]
    ended = detector(np.array([[0.1, 0.1], [0.1, 0.9]]))
    assert ended == [Detection(0, 0, 0, 1, 0, 0.9)]
    assert detector.active == [Detection(1, 0, 1, None, 1, 0.9)]


@pytest.mark.parametrize("pooling", ["mean", None])
def test_rows_of_unequal_length_have_the_events_of_each_row_alone(pooling):
    model = make_model(pooling=pooling)
    x = np.random.default_rng(1).standard_normal((2, LENGTH, 2)).astype("float32")
    single = [model.stream()(row)[0, :, :1] for row in x]
    on = float(np.median(single[1]))
    together, detector, found = model.stream(2), Detector(on), []
    for a, b in ((9, 2), (0, 7), (LENGTH - 9, LENGTH - 9)):  # steps of each row that come
        starts = together.steps
        chunk = [row[start : start + n] for row, start, n in zip(x, starts, (a, b), strict=True)]
        found += detector(together(chunk)[..., :1])
    found += detector.finish()
    for row, scores in enumerate(single):
        own = Detector(on)
        expected = [event[2:5] for event in own(scores[None]) + own.finish()]
        assert expected and [event[2:5] for event in found if event.row == row] == expected


def test_refusals():
    for arguments in ({"on": 0.5, "off": 0.6}, {"on": np.nan}, {"on": 1, "min_length": 0}):
        with pytest.raises(ValueError, match="Received"):
            Detector(**arguments)
    with pytest.raises(ValueError, match="refractory=-1"):
        Detector(on=0.5, refractory=-1)
    detector = Detector(on=0.5)
    detector(np.zeros((2, 3)))
    for scores in (np.zeros((1, 3)), np.zeros((2, 3, 2)), np.zeros(()), np.array([["a"], ["b"]])):
        with pytest.raises(ValueError, match="`scores` must be"):
            detector(scores)
    with pytest.raises(ValueError, match="`state` must be"):
        detector.state = {"steps": np.zeros((1, 1))}
