"""A forecast after each row, as `predict` gives it for all rows so far."""

import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMForecaster
from tests.backend_tools import relative_error

pytestmark = pytest.mark.once("torch")

ROWS = 10 + np.random.default_rng(0).standard_normal((60, 2)).cumsum(axis=0)
ROWS[[3, 17], [0, 1]] = np.nan


@pytest.fixture(scope="module")
def model():
    backbone = SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=4)
    model = SSMForecaster(backbone, lookback=6, horizon=3)
    model.fit(ROWS, validation=20, epochs=1, verbose=0)
    return with_numbers(model)


def with_numbers(model):
    """The model with weights that are not zero, where they would be before a long training."""
    for i, weight in enumerate([*model.shortcut.weights, *model.head_layer.weights]):
        weight.assign(np.random.default_rng(i).uniform(-0.2, 0.2, weight.shape))
    return model


def other(model, **arguments):
    """Another one of the same units, without a training."""
    return with_numbers(SSMForecaster.from_config({**model.get_config(), **arguments}))


def test_forecasts_after_each_row(model):
    expected = np.stack([model.predict(ROWS[:n]) for n in (1, 8, 33, 60)])
    for size in (1, 7, 1000):
        stream = model.stream()
        found = [stream(ROWS[i : i + size]) for i in range(0, 60, size)]
        outputs = np.concatenate(found, axis=1)
        assert outputs.shape == (1, 60, 3, 2)
        assert relative_error(outputs[0, [0, 7, 32, 59]], expected) < 1e-5


def test_states_and_rows(model):
    stream = model.stream(batch_size=2)
    stream([ROWS[:9], ROWS[:4]])
    state, copy = stream.state, stream.copy()
    outputs = stream([ROWS[9:10], ROWS[4:7]])
    assert relative_error(outputs[0, 0], model.predict(ROWS[:10])) < 1e-5
    assert relative_error(outputs[1, 2], model.predict(ROWS[:7])) < 1e-5
    assert np.isnan(outputs[0, 1:]).all() and stream.steps.tolist() == [10, 7]
    np.testing.assert_array_equal(copy([ROWS[9:10], ROWS[4:7]]), outputs)
    stream.state = state
    stream.reset(rows=0)
    outputs = stream([ROWS[:2], ROWS[4:6]])
    assert relative_error(outputs[:, 1], [model.predict(ROWS[:2]), model.predict(ROWS[:6])]) < 1e-5
    changed = other(model)
    changed.head_layer.weights[0].assign(changed.head_layer.weights[0] + 1.0)
    with pytest.raises(ValueError, match="weights that it has now"):
        changed.stream(2).state = state


@pytest.mark.parametrize("arguments", [{"head": "closed_loop"}, {"quantiles": (0.1, 0.5, 0.9)}])
def test_other_heads(model, arguments):
    model = other(model, **arguments)
    outputs, expected = model.stream()(ROWS[:12])[0, -1], model.predict(ROWS[:12])
    if isinstance(expected, dict):
        outputs, expected = outputs[..., 1], expected["mean"]
    assert relative_error(outputs, expected) < 1e-5


def test_units_of_another_fit_are_no_longer_those_of_a_stream(model):
    model = other(model, compile=True)
    stream = model.stream()
    stream(ROWS[:4])
    model.fit(1000 * ROWS, epochs=0, verbose=0)
    with pytest.raises(ValueError, match="make another one"):
        stream(1000 * ROWS[4:8])
    assert stream.steps.tolist() == [4] and model.stream()(1000 * ROWS[:2]).shape == (1, 2, 3, 2)


def test_refusals(model):
    with pytest.raises(ValueError, match="trained first"):
        SSMForecaster(lookback=4, horizon=2).stream()
    with pytest.raises(ValueError, match="`series` must name"):
        other(model, fitted={**model.fitted, "series": ["a", "b"]}).stream()
    stream = model.stream()
    for chunk, match in (
        (ROWS[:, :1], "must have shape"),
        (np.inf * ROWS, "infinities"),
        (ROWS > 0, "dtype bool"),
    ):
        with pytest.raises(ValueError, match=match):
            stream(chunk)
    assert stream.steps.tolist() == [0]


def test_units_of_a_series_by_its_number_or_given(model):
    """Of series without names, as a list of arrays has them, and of one that was not there."""
    facts = {**model.fitted, "series": [None, None]}
    mean, deviation = np.nanmean(ROWS, axis=0), np.nanstd(ROWS, axis=0)
    facts["center"] = [[0.0, 0.0], mean.tolist()]
    facts["scale"] = [[1.0, 1.0], deviation.tolist()]
    facts["seasonal_scale"] = 2 * facts["seasonal_scale"]
    several = other(model, fitted=facts, normalization=None)
    expected = several.stream(series=[1])(ROWS)
    assert relative_error(expected[0, -1], several.predict(ROWS)) < 1e-5
    assert relative_error(several.stream(series=[0])(ROWS)[0, -1], expected[0, -1]) > 1e-4
    stream = several.stream(2, units=(mean, deviation))
    assert relative_error(stream([ROWS, ROWS])[1, -1], expected[0, -1]) < 1e-6
    copy = stream.copy()
    np.testing.assert_array_equal(copy([ROWS[:1], ROWS[:1]]), stream([ROWS[:1], ROWS[:1]]))
    for units in ((0.0, -1.0), (np.zeros(3), 1.0), 1.0):
        with pytest.raises(ValueError, match="`units` must be a pair"):
            several.stream(units=units)
    with pytest.raises(ValueError, match=r"of \[0, 1\]; or `units`"):
        several.stream(series=[2])
