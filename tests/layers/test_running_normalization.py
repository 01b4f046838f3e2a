"""The running mean and deviation, against those of pandas and against one step at a time."""

import numpy as np
import pandas as pd
import pytest

from keras_ssm.layers import RunningNormalization
from tests.backend_tools import to_numpy


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 40, 2)).cumsum(axis=1).astype("float32")
    mask = rng.random((2, 40)) > 0.3
    mask[1, :5] = False
    return np.where(mask[..., None], x, np.nan).astype("float32"), mask


def test_statistics_are_those_of_pandas_and_see_nothing_that_comes_later(data):
    x, mask = data
    y, mean, deviation = map(to_numpy, RunningNormalization(span=12, epsilon=0.0)(x, mask=mask))
    for row in range(2):
        for feature in range(2):
            wanted = pd.Series(x[row, :, feature]).ewm(span=12, ignore_na=True)
            seen = np.maximum.accumulate(mask[row])
            assert np.allclose(mean[row, seen, feature], wanted.mean()[seen], atol=1e-5)
            std = np.sqrt(wanted.var(bias=True).ffill())
            assert np.allclose(deviation[row, seen, feature], std[seen], atol=1e-5)
    assert (y[~mask] == 0).all()
    back = mean + deviation * y
    assert np.allclose(back[mask], x[mask], atol=1e-5)


@pytest.mark.once("torch")
def test_a_state_goes_on_over_covered_steps_too(data):
    x, mask = data
    layer = RunningNormalization(span=12)
    whole = [to_numpy(part) for part in layer(x, mask=mask)]
    state, parts = None, []
    for piece in (slice(0, 1), slice(1, 17), slice(17, 40)):
        found, state = layer(
            x[:, piece], mask=mask[:, piece], initial_state=state, return_state=True
        )
        parts.append([to_numpy(part) for part in found])
    for i, part in enumerate(whole):
        assert np.allclose(np.concatenate([p[i] for p in parts], axis=1), part, atol=1e-5)


@pytest.mark.once("torch")
def test_a_span_below_one_step_is_refused():
    with pytest.raises(ValueError, match="`span` must be a number, finite and at least 1"):
        RunningNormalization(span=0.5)
