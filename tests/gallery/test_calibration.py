"""The expected calibration error, against its definition."""

import numpy as np
import pytest

from keras_ssm.gallery import calibration_error

pytestmark = pytest.mark.once("torch")


def test_as_defined(rng):
    logits, labels = 2 * rng.normal(size=(400, 3)), rng.integers(3, size=400)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = 0.0
    for low in np.arange(15) / 15:
        here = (shares.max(axis=1) > low) & (shares.max(axis=1) <= low + 1 / 15)
        if here.any():
            right = (shares.argmax(axis=1) == labels)[here].mean()
            expected += here.mean() * abs(right - shares.max(axis=1)[here].mean())
    found = calibration_error(logits, labels)
    assert found.error == pytest.approx(expected, rel=1e-9) and found.counts.sum() == 400
    masked = np.where(np.arange(400) < 200, labels, -1)
    assert calibration_error(logits, masked).error == pytest.approx(
        calibration_error(logits[:200], labels[:200]).error
    )


def test_probabilities_that_are_right():
    logits = np.log(np.tile([0.75, 0.25], (400, 1)))
    labels = (np.arange(400) % 4 == 0).astype(int)
    assert calibration_error(logits, labels).error == pytest.approx(0, abs=1e-12)
    assert calibration_error(logits, 1 - labels).error == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"`logits` must have shape.*Received"):
        calibration_error(logits[0], labels)
    with pytest.raises(ValueError, match=r"`labels` must have a class.*Received"):
        calibration_error(logits, np.full(400, -1))
