"""Baselines: what they forecast, by the verbs of the forecaster."""

import gzip

import keras
import numpy as np
import pandas as pd
import pytest

from keras_ssm.forecasting import (
    LSTM,
    DLinear,
    Naive,
    Ridge,
    SeasonalNaive,
    mae,
    mase,
    ridge_weights,
)
from keras_ssm.forecasting.baselines.moving_average import MovingAverage
from keras_ssm.forecasting.baselines.window_batches import WindowBatches
from tests.shared_data import shared

pytestmark = pytest.mark.once("torch")

NAN = np.nan


def waves(rows=200, variables=2, noise=0.1):
    rng = np.random.default_rng(0)
    phase = np.arange(rows)[:, None] / 3 + np.arange(variables)
    return np.sin(phase) * 10.0 ** np.arange(variables) + noise * rng.normal(size=(rows, variables))


def test_naive_repeats_the_last_known_value():
    x = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, NAN]])
    np.testing.assert_array_equal(Naive(horizon=2).fit(x).predict(), [[3, 6], [3, 6]])
    np.testing.assert_array_equal(Naive(2).fit(x).predict(x[:2]), [[2, 6], [2, 6]])


def test_seasonal_naive_repeats_the_last_known_season():
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, NAN, 9, 10])
    np.testing.assert_array_equal(SeasonalNaive(3, 5).fit(x).predict(), [5, 9, 10, 5, 9])
    np.testing.assert_array_equal(SeasonalNaive(4, 4).fit(x).predict(), [7, 4, 9, 10])
    frame = pd.Series(np.arange(50.0), pd.date_range("2024", periods=50, freq="h"))
    forecast = SeasonalNaive(horizon=25).fit(frame).predict()
    assert forecast.tolist() == [*range(26, 50), 26] and forecast.index[0] == frame.index[-1] + (
        pd.Timedelta("1h")
    )
    with pytest.raises(ValueError, match="season=None"):
        SeasonalNaive().fit(x)
    with pytest.raises(ValueError, match="at least the 3 rows"):
        SeasonalNaive(3).fit(x).predict(x[:2])


def test_ridge_is_the_solution_on_all_windows_of_the_training_part():
    x = waves()
    model = Ridge(lookback=12, horizon=5, alpha=2.0).fit(x, validation=40)
    deviation = x[:160].std(axis=0)
    inputs, targets = [], []
    for v in range(2):
        for t in range(12, 160 - 5 + 1):
            inputs.append((x[t - 12 : t, v] - x[t - 1, v]) / deviation[v])
            targets.append((x[t : t + 5, v] - x[t - 1, v]) / deviation[v])
    expected = ridge_weights(np.array(inputs), np.array(targets), 2.0)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-8, atol=1e-10)
    last = x[-1]
    forecast = last + ((x[-12:] - last).T @ expected).T
    np.testing.assert_allclose(model.predict(), forecast)
    np.testing.assert_allclose(model.predict(x[-12:]), forecast)


def test_ridge_takes_the_penalty_that_validates_best():
    x = waves(100, 1, noise=1.0)
    model = Ridge(12, 5).fit(x, validation=40)
    errors = {
        alpha: Ridge(12, 5, alpha).fit(x, validation=40).evaluate(x, rows=40)["mse"]
        for alpha in (0.0, model.chosen_alpha / 3.2, model.chosen_alpha * 3.2, 1e6)
    }
    assert model.evaluate(x, rows=40)["mse"] < min(errors.values())


def test_evaluate_reads_every_window():
    x = waves(60)
    model = SeasonalNaive(19, horizon=7).fit(x, validation=20)
    actual, forecast = [], []
    for t in range(40, 60 - 7 + 1):
        actual.append(x[t : t + 7])
        forecast.append(x[t - 19 : t - 12])
    found = model.evaluate(x, rows=20)
    assert len(actual) == 20 - 7 + 1
    assert found["mae"] == pytest.approx(mae(np.array(actual), np.array(forecast)))
    assert found["rmse"] ** 2 == pytest.approx(found["mse"])
    expected = mase(np.array(actual), np.array(forecast), x[:40], 19)
    assert found["mase"] == pytest.approx(expected)
    assert model.evaluate(x)["mae"] != found["mae"]  # windows from row 19 on
    several = model.evaluate([x, x[:10], x])  # of too short a series there is none
    assert several["mae"] == pytest.approx(model.evaluate(x)["mae"])
    # A constant variable has no scale, and is left out.
    still = model.evaluate([x, np.ones((60, 2))])
    assert (
        still["mase"] == pytest.approx(model.evaluate(x)["mase"]) and still["mae"] < several["mae"]
    )
    with pytest.raises(ValueError, match=r"must have 19 rows.*horizon of 7. Received: at most 25"):
        model.evaluate(x[:25])


@pytest.mark.parametrize("make", [
    lambda: Naive(4),
    lambda: SeasonalNaive(19, 4),
    lambda: Ridge(20, 4),
    lambda: DLinear(20, 4, width=5, epochs=1),
    lambda: LSTM(20, 4, units=4, epochs=1, batch_size=256),
])  # fmt: skip
def test_every_baseline_takes_what_the_forecaster_takes(make):
    """Gaps, several series of other lengths and levels, covariates, intervals."""
    parts = []
    for name, rows in (("a", 120), ("b", 90)):
        dates = pd.date_range("2024-01-01", periods=rows, freq="D")
        y = waves(rows, 1)[:, 0] * (1 if name == "a" else 1000) + (0 if name == "a" else 5000)
        parts.append(pd.DataFrame({"unique_id": name, "ds": dates, "y": y, "promo": 1.0}))
    data = pd.concat(parts)
    data = data.drop(data.index[[5, 6, 50]])
    data.loc[data.index[70], "y"] = NAN
    model = make().fit(data, validation=30)
    forecast = model.predict(levels=(80,))
    assert list(forecast) == ["unique_id", "ds", "y", "lo-80", "hi-80"] and len(forecast) == 8
    assert np.isfinite(forecast[["y", "lo-80", "hi-80"]]).all(axis=None)
    assert (forecast["lo-80"] < forecast["hi-80"]).all()
    wide = forecast[forecast["unique_id"] == "b"]
    narrow = forecast[forecast["unique_id"] == "a"]
    ratio = (wide["hi-80"] - wide["y"]).mean() / (narrow["hi-80"] - narrow["y"]).mean()
    assert 900 < ratio < 1100
    later = model.predict(data[data["unique_id"] == "b"])
    np.testing.assert_allclose(later["y"], wide["y"], rtol=1e-6)
    found = model.evaluate(data, rows=30)
    assert all(np.isfinite(value) for value in found.values()) and found["mase"] < 2


def test_a_backtest_is_what_was_forecast_then():
    x = waves(60)
    model = Ridge(12, 4).fit(x, validation=20)
    found = model.backtest(x, windows=3, step=5, levels=50)
    for window, cut in enumerate((46, 51, 56)):
        single = model.predict(x[:cut], levels=50)
        for name in ("mean", "lo-50", "hi-50"):
            np.testing.assert_allclose(found.forecasts[name][0][window], single[name])
        np.testing.assert_array_equal(found.actual[0][window], x[cut : cut + 4])
    frame = found.frame()
    assert len(frame) == 3 * 4 * 2 and frame["cutoff"].iloc[0] == 45
    assert found.scores["mae"] == pytest.approx(np.mean(np.abs(frame["y"] - frame["forecast"])))
    inside = (frame["lo-50"] <= frame["y"]) & (frame["y"] <= frame["hi-50"])
    assert found.scores["coverage_50"] == pytest.approx(inside.mean())
    assert model.evaluate(x, rows=14, step=5, levels=[50]) == found.scores


def test_intervals_cover_later_data():
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=4000))
    model = Naive(horizon=3).fit(x[:2000], validation=1500)
    inside = []
    for t in range(2000, 3990, 5):
        bands = model.predict(x[:t], levels=(90,))
        inside.append((x[t : t + 3] >= bands["lo-90"]) & (x[t : t + 3] <= bands["hi-90"]))
    np.testing.assert_allclose(np.mean(inside, axis=0), 0.9, atol=0.05)
    widths = model.predict(levels=(90,))
    widths = widths["hi-90"] - widths["lo-90"]
    np.testing.assert_allclose(widths / 2, 1.645 * np.sqrt([1, 2, 3]), rtol=0.1)


def test_dlinear_learns_a_linear_rule():
    x = waves(160, 1, noise=0.0)
    model = DLinear(12, 4, width=5, epochs=8, batch_size=8, learning_rate=3e-2).fit(x)
    assert model.evaluate(x, rows=40)["mse"] < 0.01 * Naive(4).fit(x).evaluate(x, rows=40)["mse"]
    repeated = DLinear(24, 4, width=5, epochs=1, batch_size=32, seed=0).fit(x).predict()
    same = DLinear(24, 4, width=5, epochs=1, batch_size=32, seed=0).fit(x).predict()
    other = DLinear(24, 4, width=5, epochs=1, batch_size=32, seed=1).fit(x).predict()
    np.testing.assert_array_equal(repeated, same)
    assert np.abs(repeated - other).max() > 1e-3


def test_moving_average(rng):
    x = rng.normal(size=(2, 9)).astype("float32")
    padded = np.pad(x, [(0, 0), (2, 2)], mode="edge")
    expected = np.stack([padded[:, t : t + 5].mean(axis=1) for t in range(9)], axis=1)
    found = keras.ops.convert_to_numpy(MovingAverage(5)(x))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="width=4"):
        DLinear(24, 4, width=4)


def test_batches_hold_every_window_once(rng):
    pairs = [(rng.normal(size=(n, 3)), rng.normal(size=(n, 2))) for n in (5, 1, 7)]
    pairs[0][1][2, 1] = NAN
    batches = WindowBatches(pairs, 4, seed=0)
    epochs = []
    for _ in range(2):
        parts = [batches[i] for i in range(len(batches))]
        assert [len(x) for x, _, _ in parts] == [4, 4, 4, 1]
        epochs.append([np.concatenate(part) for part in zip(*parts, strict=True)])
        batches.on_epoch_end()
    (x, y, weights), (later, _, _) = epochs
    assert not np.array_equal(x, later)
    everything = np.concatenate([part for part, _ in pairs]).astype("float32")
    np.testing.assert_array_equal(np.sort(x, axis=0), np.sort(everything, axis=0))
    assert weights.sum() == 2 * 13 - 1 and np.isfinite(y).all()
    (lacking,) = np.flatnonzero((weights == 0).any(axis=1))
    np.testing.assert_array_equal(x[lacking], pairs[0][0][2].astype("float32"))


def test_what_is_too_short_is_refused():
    x = waves(60)
    for make, data, arguments, message in [
        (lambda: Ridge(40, 12), x, {}, "`validation` must leave a validation part"),
        (lambda: Ridge(50, 12), x, {}, "a series of at least 62 rows"),
        (lambda: Ridge(10, 8), x, {"validation": 4}, "at least the horizon of 8, a share"),
        (lambda: Ridge(10, 8), x, {"validation": 60}, "`validation` must leave 18 rows"),
        (lambda: Ridge(10, 8), x, {"validation": "half"}, "a share between 0 and 1"),
        (lambda: Ridge(0, 8), x, {}, "lookback=0"),
        (lambda: Ridge(8, 8, alpha=-1), x, {}, "alpha=-1"),
        (lambda: Naive(8), np.full((9, 1), NAN), {}, "a value in some row"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            make().fit(data, **arguments)
        assert "Received: " in str(error.value)
    with pytest.raises(ValueError, match="`fit` must come before"):
        Naive(8).predict(x)
    with pytest.raises(ValueError, match="at least 9 known errors"):
        Naive(8).fit(x, validation=15).predict(levels=(90,))
    with pytest.raises(ValueError, match="columns that `fit` has seen"):
        Naive(8).fit(x).predict(x[:, :1])


def test_etth1_repeats_the_known_figures():
    """Of all 2785 windows of the test part; those of ridge were found by another program."""
    with gzip.open(shared("data/ett/ETTh1.csv.gz"), "rt") as file:
        x = np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(1, 8), max_rows=14400)
    x = (x - x[:8640].mean(axis=0)) / x[:8640].std(axis=0)
    known = {
        Naive(96): (1.294, 0.713),
        SeasonalNaive(24, 96): (0.512, 0.433),
        Ridge(336, 96): (0.371, 0.393),
    }
    for model, expected in known.items():
        found = model.fit(x[:11520], validation=2880).evaluate(x, rows=2880)
        np.testing.assert_allclose([found["mse"], found["mae"]], expected, atol=0.002)
