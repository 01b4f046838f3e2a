"""Metrics against their formulas, term by term, and intervals against new noise."""

import numpy as np
import pandas as pd
import pytest

from keras_ssm.forecasting import (
    coverage,
    half_widths,
    mae,
    mase,
    mse,
    rmse,
    weighted_quantile_loss,
    with_intervals,
)
from keras_ssm.forecasting.conformal import least_errors

pytestmark = pytest.mark.once("torch")

SHAPE = (5, 4, 3)  # windows, horizon, variables


@pytest.fixture
def y(rng):
    y = rng.normal(size=SHAPE)
    y[0, 1:3, 2] = y[3, :, 0] = np.nan
    return y


def known(y):
    """Places of values that are known."""
    return [place for place in np.ndindex(y.shape) if y[place] == y[place]]


def test_errors(y, rng):
    forecast = rng.normal(size=SHAPE)
    errors = [y[place] - forecast[place] for place in known(y)]
    assert len(errors) == 60 - 6
    assert mse(y, forecast) == pytest.approx(sum(e * e for e in errors) / 54)
    assert mae(y, forecast) == pytest.approx(sum(map(abs, errors)) / 54)
    assert rmse(y, forecast) == pytest.approx((sum(e * e for e in errors) / 54) ** 0.5)
    one = y[0, 0, :1], forecast[0, 0, :1]
    assert mse(*one) == pytest.approx(errors[0] ** 2)


@pytest.mark.parametrize("season", [1, 7])
def test_mase(y, rng, season):
    forecast, history = rng.normal(size=SHAPE), rng.normal(size=(30, 3))
    history[4, 1] = np.nan
    ratios = []
    for v in range(3):
        past = history[:, v]
        steps = [abs(past[t] - past[t - season]) for t in range(season, 30)]
        steps = [step for step in steps if step == step]
        errors = [abs(y[p] - forecast[p]) for p in known(y) if p[2] == v]
        ratios.append((sum(errors) / len(errors)) / (sum(steps) / len(steps)))
    assert mase(y, forecast, history, season) == pytest.approx(sum(ratios) / 3)
    # Each series has its own scale.
    other = mase(10 * y, 10 * forecast, 10 * history, season)
    both = mase([y, 10 * y], [forecast, 10 * forecast], [history, 10 * history], season)
    assert other == pytest.approx(sum(ratios) / 3) == both


def test_weighted_quantile_loss(y, rng):
    forecasts = {q: rng.normal(size=SHAPE) for q in (0.1, 0.5, 0.9)}
    losses = []
    for q, forecast in forecasts.items():
        terms = [
            q * (y[p] - forecast[p]) if y[p] > forecast[p] else (1 - q) * (forecast[p] - y[p])
            for p in known(y)
        ]
        losses.append(2 * sum(terms) / sum(abs(y[p]) for p in known(y)))
    assert weighted_quantile_loss(y, forecasts) == pytest.approx(sum(losses) / 3)
    halves = {q: [part[:2], part[2:]] for q, part in forecasts.items()}
    assert weighted_quantile_loss([y[:2], y[2:]], halves) == pytest.approx(sum(losses) / 3)


def test_coverage(y):
    low, high = np.full(SHAPE, -0.5), np.full(SHAPE, 0.8)
    inside = [-0.5 <= y[p] <= 0.8 for p in known(y)]
    assert coverage(y, low, high) == pytest.approx(sum(inside) / 54)
    assert coverage(np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.array([1.0, 3.0])) == 0.5


def test_frames_are_matched_by_their_dates():
    index = pd.date_range("2024-01-01", periods=6, freq="D")
    y = pd.DataFrame({"a": np.arange(6.0), "b": 1.0}, index=index)
    forecast = pd.DataFrame({"b": 1.0, "a": [5.0, 7.0], "a-lo-90": 0.0}, index=index[[4, 5]])
    assert mae(y, forecast) == pytest.approx((1 + 2) / 4)
    assert mae(y["a"], forecast["a"]) == 1.5
    assert mase(y[["a"]], forecast[["a"]], y.iloc[:4]) == 1.5
    assert coverage(y["a"], forecast["a-lo-90"], forecast["a"]) == 1.0
    with pytest.raises(ValueError, match="every row of `forecast`"):
        mae(y.iloc[:5], forecast)
    with pytest.raises(ValueError, match="columns of `y`"):
        mae(y[["b"]].assign(c=1), forecast[["a"]].rename(columns={"a": "d"}).assign(e=1))
    with pytest.raises(ValueError, match="frames alike"):
        mae(y, forecast.to_numpy())
    rows = [
        (name, date, value) for name in "pq" for date, value in zip(index, range(6), strict=True)
    ]
    y = pd.DataFrame(rows, columns=["unique_id", "ds", "y"])
    scaled = y.assign(y=y["y"].where(y["unique_id"] == "p", 10 * y["y"]))
    ahead = scaled[scaled["ds"] >= index[4]].sample(frac=1, random_state=1)
    wrong = ahead.assign(y=ahead["y"] + np.where(ahead["unique_id"] == "p", 1, 30))
    assert mae(scaled, wrong) == pytest.approx((1 + 30) / 2)
    history = scaled[scaled["ds"] < index[4]]
    assert mase(scaled, wrong, history) == pytest.approx((1 + 3) / 2)


def test_metrics_refuse(y):
    forecast = np.zeros(SHAPE)
    wrong = np.where(np.arange(3) == 1, np.nan, forecast)
    for call, message in [
        (lambda: mse(y, forecast[:4]), "shape of `y`"),
        (lambda: mae(y, wrong), "a number wherever `y` has one"),
        (lambda: mae(np.full(3, np.nan), np.zeros(3)), "known values"),
        (lambda: mae([y], [forecast, forecast]), "as many series as `y`"),
        (lambda: mase(y, forecast, np.ones((9, 3))), "must change"),
        (lambda: mase(y, forecast, np.ones((9, 2))), "the variables of `y`"),
        (lambda: mase(y, forecast, np.ones((9, 3)), 9), "more rows than `season`"),
        (lambda: weighted_quantile_loss(y, forecast), "dict of quantiles"),
        (lambda: weighted_quantile_loss(y, {90: forecast}), "between 0 and 1. Received: 90"),
        (lambda: weighted_quantile_loss(0 * forecast, {0.5: forecast}), "other than 0"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "Received: " in str(error.value)


@pytest.mark.parametrize(("count", "level"), [(19, 90.0), (9, 80.0), (40, 50.0)])
def test_intervals_hold_as_many_new_values_as_they_say(rng, count, level):
    """Of any noise, on average over calibration parts of any size."""
    errors = rng.standard_t(3, size=(count, 4000, 2)) * [1.0, 20.0]
    widths = half_widths(errors, level)
    new = np.abs(rng.standard_t(3, size=(25, 4000, 2))) * [1.0, 20.0] <= widths
    expected = np.ceil((count + 1) * level / 100) / (count + 1)
    assert level / 100 <= expected < level / 100 + 1 / (count + 1)
    np.testing.assert_allclose(new.mean(axis=(0, 1)), expected, atol=0.01)


def test_widths_count_known_errors_alone(rng):
    errors = rng.normal(size=(30, 3, 1))
    errors[:11, 1] = np.nan
    np.testing.assert_array_equal(half_widths(errors, 90)[1], half_widths(errors[11:], 90)[1])
    found = with_intervals([np.ones((3, 1))], {80: [np.full((3, 1), 0.5)], 50.5: [np.ones((3, 1))]})
    assert list(found) == ["mean", "lo-50.5", "hi-50.5", "lo-80", "hi-80"]
    assert found["lo-80"][0][0] == 0.5 and found["hi-80"][0][0] == 1.5
    assert [least_errors(level) for level in (50, 80, 90, 95, 99)] == [1, 4, 9, 19, 99]
    half_widths(errors[11:20], 90)
    for wrong, level, message in [
        (errors[:8], 90, "at least 9 known errors.*Received: 0"),
        (errors[11:19], 90, "at least 9 known errors.*Received: 8"),
        (errors, 100, "level=100"),
        (errors, 0, "level=0"),
        (errors[..., 0], 90, "residuals.shape=\\(30, 3\\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            half_widths(wrong, level)
