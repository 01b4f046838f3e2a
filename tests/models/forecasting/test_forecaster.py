"""A forecaster from data to forecasts: training, going on, files, and what it refuses."""

import keras
import numpy as np
import pandas as pd
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMForecaster
from keras_ssm.models.forecasting import closed_form, rolling
from keras_ssm.models.forecasting.keep_best import KeepBest
from keras_ssm.models.forecasting.paired_gain import paired_gain
from keras_ssm.models.saving.preset_loading import load_model

LOOKBACK, HORIZON = 8, 4


def small(width=1, **arguments):
    backbone = SSMBackbone(
        S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=8, input_dim=width, prenorm=True
    )
    return SSMForecaster(backbone, lookback=LOOKBACK, horizon=HORIZON, **arguments)


def waves(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    phase = np.arange(rows)[:, None] / np.array([3.0, 5.0])
    return np.sin(phase) * [1.0, 20.0] + [0.0, 100.0] + 0.1 * rng.standard_normal((rows, 2))


def shaken(model):
    """Gives the branch a say, as if it had been trained."""
    rng = np.random.default_rng(1)
    for weight in model.head_layer.weights:
        weight.assign(0.3 * rng.standard_normal(weight.shape))
    return model


@pytest.fixture(scope="module")
def data():
    x = waves()
    x[30:33, 0] = np.nan
    return x


@pytest.fixture(scope="module")
def model(data):
    """Trained by its shortcut, and with a branch that adds something to it."""
    keras.utils.set_random_seed(0)
    model = small()
    model.fit(data, validation=30, epochs=1, steps_per_epoch=2, batch_size=4, verbose=0)
    return shaken(model)


def test_update_is_a_forecast_of_the_whole_history(model, data):
    expected = model.predict(data)
    assert expected.shape == (HORIZON, 2)
    model.predict(data[:29])
    for i in range(29, 35):  # over the gap
        found = model.update(data[i : i + 1])
    assert np.allclose(found, model.predict(data[:35]), rtol=1e-5, atol=1e-5)
    found = model.update(data[35:])
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(model.predict(), expected, rtol=1e-5, atol=1e-5)
    # From nothing at all, too.
    model.reset()
    assert np.allclose(model.update(data), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.eager
@pytest.mark.parametrize(
    "kind",
    ["file", *(pytest.param(k, marks=pytest.mark.once("torch")) for k in ("preset", "clone"))],
)
def test_saved_is_loaded(model, data, tmp_path, kind):
    if kind == "file":
        model.save(tmp_path / "model.keras")
        found = keras.models.load_model(tmp_path / "model.keras")
    elif kind == "preset":
        model.save_to_preset(tmp_path / "preset")
        found = load_model(tmp_path / "preset")
    else:
        found = keras.models.clone_model(model)
        found.set_weights(model.get_weights())
    assert isinstance(found, SSMForecaster)
    again, expected = (forecaster.predict(data, levels=80) for forecaster in (found, model))
    for name in ("mean", "lo-80", "hi-80"):
        assert np.allclose(again[name], expected[name], rtol=1e-5, atol=1e-5)
    assert (expected["lo-80"] < expected["mean"]).all()
    found.reset()
    found.update(data)
    found = keras.models.clone_model(model)
    with pytest.raises(ValueError, match=r"`predict\(history\)` reads them.*Received: `update`"):
        found.update(data[-1:])  # as if it were all that there was


@pytest.mark.eager
def test_training_moves_the_branch_and_the_best_is_kept(data):
    keras.utils.set_random_seed(0)
    model = small()
    before = model.get_weights()
    settings = {"validation": 30, "steps_per_epoch": 3, "batch_size": 8, "verbose": 0}
    history = model.fit(data, epochs=2, **settings).history
    if model.fitted["epoch"] == 0:
        after = model.get_weights()
        moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert sum(moved) == 1  # the shortcut, solved in closed form
    else:
        assert min(history["val_loss"]) == history["val_loss"][model.fitted["epoch"] - 1]


@pytest.mark.once("torch")
def test_dropout_acts_in_training_alone(data):
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=8, dropout=0.5)
    model = shaken(SSMForecaster(backbone, lookback=LOOKBACK, horizon=HORIZON))
    x = data[:20, 1:][None].astype("float32")
    plain, again, trained = (
        keras.ops.convert_to_numpy(model(x, training=flag)) for flag in (None, False, True)
    )
    assert np.array_equal(plain, again) and not np.allclose(plain, trained)


# Tests that no backend changes


@pytest.mark.once("torch")
def test_step_0_is_kept_where_the_branch_does_not_help():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200, 1))  # nothing is to be learned
    settings = {"validation": 60, "steps_per_epoch": 4, "batch_size": 8, "verbose": 0}
    keras.utils.set_random_seed(0)
    model = small()
    model.compile(keras.optimizers.Adam(0.3))  # pure noise: it can only overfit
    history = model.fit(noise, epochs=2, **settings).history
    assert model.fitted["epoch"] == 0
    alone = small()
    alone.fit(noise, epochs=0, **settings)
    assert np.allclose(model.predict(noise), alone.predict(noise), atol=1e-6)
    assert min(history["val_loss"]) > alone.evaluate(noise, rows=60)["mse"]


@pytest.mark.once("torch")
def test_gains_that_say_little_do_not_count(model):
    best = KeepBest(margin=0.1)
    best.set_model(model)
    best.begin(1.0, model.get_weights(), None)
    kept = []
    for epoch, loss in enumerate((0.95, 0.85, 0.84, 0.9)):
        best.on_epoch_end(epoch, {"val_loss": loss})
        kept.append(best.epoch)
    assert kept == [0, 2, 3, 3]


@pytest.mark.once("torch")
@pytest.mark.parametrize("errors", [0.0, 1e9])
def test_a_gain_within_its_standard_error_does_not_count(errors):
    keras.utils.set_random_seed(0)
    model = small()
    keep = KeepBest(margin=0.0, standard_errors=errors)
    settings = {"validation": 60, "steps_per_epoch": 4, "batch_size": 8, "verbose": 0}
    model.compile(keras.optimizers.Adam(0.01))
    series = np.abs(waves(200))  # no linear map forecasts these exactly
    history = model.fit(series, epochs=4, keep=keep, **settings).history
    alone = small()
    alone.fit(series, epochs=0, **settings)
    gained = not np.allclose(model.predict(series), alone.predict(series), atol=1e-6)
    assert min(history["val_loss"]) < keep.best * 1.0001 and gained == (errors == 0.0)
    assert (model.fitted["epoch"] > 0) == gained


@pytest.mark.once("torch")
def test_the_gain_of_weights_is_that_of_stretches_of_a_horizon():
    class Windows:
        origins, batch_size = np.array([[0, 1], [2, 3], [4, 4]]), 2

        def __len__(self):
            return 2

        def __getitem__(self, index):
            part = self.origins[2 * index : 2 * index + 2]
            weight = np.ones((len(part), 2, 3))
            weight[part == 4] = 0.0
            return part, np.zeros((len(part), 2, 3, 1)), weight

    class Model:
        horizon, loss, weights = 2, keras.losses.MeanSquaredError(), [np.ones(1)]

        def get_weights(self):
            return self.weights

        def set_weights(self, weights):
            self.weights = weights

        def predict_on_batch(self, origins):
            return np.zeros((*origins.shape, 3, 1)) + self.weights[0] * origins[..., None, None]

    # Squares: 0, 1 in the first stretch and 4, 9 in the second, four times as large before.
    gain, error = paired_gain(Model(), Windows(), [np.full(1, 2.0)])
    gains = 3 * np.array([0.5, 6.5])
    assert np.isclose(gain, gains.mean()) and np.isclose(error, gains.std(ddof=1) / 2**0.5)


@pytest.mark.once("torch")
def test_gaps_among_the_targets_are_no_values_of_their_own(data, monkeypatch):
    gappy = waves(300)
    gappy[np.random.default_rng(0).random(gappy.shape) < 0.1] = np.nan

    def error():
        model = small()
        model.fit(gappy, validation=60, epochs=0, verbose=0)
        return model.evaluate(waves(300, seed=1), rows=60)["mase"]

    exact = error()
    monkeypatch.setattr(closed_form, "LARGEST", 0)  # windows too many for sums of their own
    between = error()
    whole = small()
    whole.fit(waves(300), validation=60, epochs=0, verbose=0)
    wanted = whole.evaluate(waves(300, seed=1), rows=60)["mase"]
    assert between != exact
    assert exact < 1.3 * wanted and between < 1.3 * wanted


@pytest.mark.once("torch")
def test_many_series_are_read_in_blocks(monkeypatch):
    series = [waves(40 + i, seed=i) for i in range(3)]
    for head in ("direct", "closed_loop"):
        model = small(head=head)
        model.fit(series, validation=10, epochs=0, verbose=0)
        shaken(model)
        expected, later = model.predict(series), model.update([x[:3] for x in series])
        monkeypatch.setattr(rolling, "ROWS", 2)
        found, after = model.predict(series), model.update([x[:3] for x in series])
        monkeypatch.undo()
        assert np.allclose(found, expected, rtol=1e-5) and np.allclose(after, later, rtol=1e-5)


@pytest.mark.once("torch")
def test_the_shortcut_is_ridge_regression(data):
    model = small()
    model.fit(data, validation=30, epochs=0, verbose=0)
    kernel = keras.ops.convert_to_numpy(model.shortcut.kernel)
    x = data[:, 1]
    expected = x[-1] + (x[-LOOKBACK:] - x[-1]) @ kernel
    assert np.allclose(model.predict(data)[:, 1], expected, rtol=1e-5)


@pytest.mark.once("torch")
def test_a_missing_step_is_a_step_that_the_branch_does_not_see(model):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 20, 1)).astype("float32")
    with_gap = np.concatenate([x[:, :7], np.full((1, 3, 1), np.nan, "float32"), x[:, 7:]], axis=1)
    # The window of the shortcut is past the gap in both.
    found, expected = (keras.ops.convert_to_numpy(model(v)) for v in (with_gap, x))
    assert np.allclose(found, expected, atol=1e-6)
    # In the window, a missing value is replaced by the last value seen.
    late = np.concatenate([x, np.full((1, 2, 1), np.nan, "float32")], axis=1)
    window = np.concatenate([x[0, -6:, 0], np.repeat(x[0, -1, 0], 2)])
    shortcut = keras.ops.convert_to_numpy(model.shortcut(window[None]))
    kept = keras.ops.convert_to_numpy(model(x))[0, 0, :, 0]
    plain = keras.ops.convert_to_numpy(model.shortcut(x[:, -LOOKBACK:, 0]))[0]
    found = keras.ops.convert_to_numpy(model(late))[0, 0, :, 0]
    assert np.allclose(found - shortcut[0], kept - plain, atol=1e-5)


@pytest.mark.once("torch")
def test_a_known_covariate_that_decides_the_target_is_used():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    switch = rng.integers(2, size=400).astype("float64")
    table = np.stack([2.0 * switch - 1.0, switch], axis=1)
    model = small(width=2, known=[1])
    model.compile(keras.optimizers.Adam(3e-2))
    model.fit(table[:300], validation=60, epochs=4, steps_per_epoch=20, batch_size=16, verbose=0)
    assert model.fitted["epoch"] > 0
    found = model.predict(table[:300], future=switch[300:304, None])
    assert np.abs(found[:, 0] - table[300:304, 0]).max() < 0.6  # of 2
    other = model.predict(table[:300], future=1.0 - switch[300:304, None])
    assert np.abs(other[:, 0] + table[300:304, 0]).max() < 0.6  # of 2


@pytest.mark.once("torch")
def test_series_of_unequal_length_with_static_and_categorical_covariates():
    rng = np.random.default_rng(0)
    parts = []
    for name, rows, level in (("a", 60, 5.0), ("b", 45, 1e4), ("c", 30, -3.0)):
        parts.append(
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": pd.date_range("2020-01-01", periods=rows, freq="D"),
                    "y": level * (1.0 + 0.1 * rng.standard_normal(rows)),
                    "kind": "x" if name == "a" else "z",
                    "day": np.arange(rows) % 7,
                    "wind": rng.standard_normal(rows),
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    columns = {"historic": ["wind"], "known": ["day"], "static": ["kind"]}
    model = small(width=11, categorical={"kind": ["x", "z"], "day": 7}, **columns)
    model.fit(frame, validation=10, epochs=1, steps_per_epoch=1, batch_size=2, verbose=0)
    shaken(model)
    later = [
        pd.DataFrame(
            {
                "unique_id": part["unique_id"].iloc[0],
                "ds": pd.date_range(part["ds"].iloc[-1], periods=HORIZON + 3, freq="D")[1:],
                "day": (len(part) + np.arange(HORIZON + 2)) % 7,
            }
        )
        for part in parts
    ]
    found = model.predict(frame, future=pd.concat([part.iloc[:HORIZON] for part in later]))
    assert list(found["unique_id"].unique()) == ["a", "b", "c"] and len(found) == 3 * HORIZON
    assert found["ds"].iloc[0] == pd.Timestamp("2020-03-01")
    # One row for one of the series. By its index, the row before it is missing.
    row = later[1].iloc[1:2].assign(y=1.1e4, kind="z", wind=0.5)
    ahead = later[1].iloc[2 : 2 + HORIZON]
    found = model.update(row, future=ahead)
    assert list(found["unique_id"].unique()) == ["b"]
    gap = later[1].iloc[:1].assign(y=np.nan, kind="z", wind=np.nan)
    whole = model.predict(pd.concat([parts[1], gap, row]), future=ahead)
    assert np.allclose(found["y"], whole["y"], rtol=1e-5)
    with pytest.raises(ValueError, match="must follow the last one that was read"):
        model.update(parts[1].iloc[-1:], future=later[1])


@pytest.mark.once("torch")
def test_quantiles_do_not_cross_and_cover_what_they_say():
    keras.utils.set_random_seed(0)
    x = waves(rows=600)
    model = small(quantiles=(0.1, 0.5, 0.9))
    model.fit(x[:500], validation=100, epochs=1, steps_per_epoch=5, verbose=0)
    scores = model.evaluate(x, rows=100)
    assert 0.7 < scores["coverage_80"] < 0.9
    shaken(model)
    found = model.predict(x)
    assert list(found) == ["mean", "lo-80", "hi-80"]
    assert (found["lo-80"] <= found["mean"]).all() and (found["mean"] <= found["hi-80"]).all()


@pytest.mark.once("torch")
def test_a_closed_loop_feeds_its_forecast_back(data):
    keras.utils.set_random_seed(0)
    model = small(head="closed_loop")
    model.fit(data, validation=30, epochs=1, steps_per_epoch=2, batch_size=4, verbose=0)
    shaken(model)
    expected = model.predict(data)
    steps, history = [], data
    for _ in range(HORIZON):
        steps.append(model.predict(history)[0])
        history = np.concatenate([history, steps[-1][None]])
    assert np.allclose(expected, steps, rtol=1e-5, atol=1e-5)
    found = model.backtest(data, windows=3, step=2)
    for window, cut in enumerate((112, 114, 116)):
        alone = model.predict(data[:cut])
        assert np.allclose(found.forecasts["mean"][0][window], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.once("torch")
def test_a_backtest_is_what_was_forecast_then(model, data):
    found = model.backtest(data, windows=3, step=5, levels=80)
    for window, cut in enumerate((106, 111, 116)):
        alone = model.predict(data[:cut], levels=80)
        for name in ("mean", "hi-80"):
            assert np.allclose(found.forecasts[name][0][window], alone[name], rtol=1e-5, atol=1e-5)
        assert np.array_equal(found.actual[0][window], data[cut : cut + HORIZON])
    frame = found.frame()
    assert len(frame) == 3 * HORIZON * 2 and frame["cutoff"].iloc[0] == 105
    error = np.mean((frame["y"] - frame["forecast"]) ** 2)
    assert np.isclose(error, found.scores["mse"])
    again = model.backtest(data, windows=2, refit=True, epochs=0, verbose=0)
    alone = small()
    alone.fit(data[:112], epochs=0, verbose=0)
    expected = alone.predict(data[:112])
    assert np.allclose(again.forecasts["mean"][0][0], expected, rtol=1e-5)


@pytest.mark.once("torch")
def test_what_comes_later_tells_no_units_of_a_series_that_is_new(data):
    import pandas as pd

    def frame(x, name):
        days = pd.date_range("2024-01-01", periods=len(x))
        return pd.DataFrame({"unique_id": name, "ds": days, "y": x})

    x = waves(60)[:, 1]
    later = np.where(np.arange(60) < 41, x, 50 * x)
    model = small(normalization=None)
    model.fit(frame(waves()[:, 0], "a"), epochs=0, verbose=0)
    shaken(model)
    expected = model.predict(frame(x[:41], "b"), levels=80)
    for series in (x, later):
        found = model.backtest(frame(series, "b"), windows=4, step=5, levels=80)
        for name, column in (("forecast", "y"), ("lo-80", "lo-80")):
            mine = found.frame()[name].to_numpy()[:HORIZON]
            assert np.allclose(mine, expected[column].to_numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.once("torch")
@pytest.mark.parametrize("trains", [False, True])
def test_the_shortcut_trains_only_if_it_did(trains, tmp_path):
    model = small(train_shortcut=trains)
    model.trainable = False
    model.save(tmp_path / "model.keras")
    for found in (model, keras.models.load_model(tmp_path / "model.keras")):
        assert found.trainable_variables == []
        found.trainable = True
        assert found.shortcut.trainable == trains and found.backbone.trainable_variables
        assert found.get_config()["train_shortcut"] == trains


BAD = {
    "longer than the data": (lambda m, x: m.fit(x[:5]), "at least 6 rows, 2 more than the hor"),
    "short validation": (lambda m, x: m.fit(x, validation=2), "`validation` must be a number of"),
    "all NaN": (lambda m, x: m.predict(x * np.nan), "`history` must hold a value of every"),
    "another width": (lambda m, x: m.predict(x[:, :1]), "must have the columns"),
    "a level": (lambda m, x: m.predict(x, levels=99), "`levels` must be some for which"),
    "levels of fit": (lambda m, x: m.fit(x, levels="90"), "`levels` must be a number"),
    "few rows": (lambda m, x: m.evaluate(x, rows=2), "`rows` must be at least the horizon, 4"),
    "before fit": (lambda m, x: small().predict(x), "must be trained first"),
    "nothing read": (lambda m, x: (m.reset(), m.predict()), "`history` must be given"),
    "quantiles": (lambda m, x: small(quantiles=(0.1, 0.5)), "symmetric about 0.5"),
    "a looped quantile": (
        lambda m, x: small(quantiles=(0.5,), head="closed_loop"),
        "feeds one number back",
    ),
    "a backbone": (lambda m, x: small(width=2), "must read floats of input_dim=1"),
    "both ways": (
        lambda m, x: SSMForecaster(SSMBackbone(S4D(4, bidirectional=True), 1, 4)),
        "must be causal",
    ),
    "two roles": (lambda m, x: small(known=["a"], historic=["a"]), "must be one of `historic`"),
}


@pytest.mark.once("torch")
@pytest.mark.parametrize("case", BAD)
def test_what_would_forecast_nonsense_is_refused(model, data, case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        call(model, data)
    assert "Received: " in str(error.value)


@pytest.mark.once("torch")
def test_covariates_that_end_early_are_refused():
    x = waves()
    model = small(width=2, known=[1])
    model.fit(x, epochs=0, verbose=0, levels=80)
    for future in (None, x[: HORIZON - 1, 1:]):
        with pytest.raises(ValueError, match="`future` must have the known covariates"):
            model.predict(x, future=future)


@pytest.mark.once("torch")
def test_rows_that_cannot_follow_are_refused(model, data):
    model.predict([data[:60], data[:50]])
    for rows in (
        data[60:61],
        [data[60:61]],
        [data[60:61]] * 3,
    ):  # the rows do not say of which series
        with pytest.raises(ValueError, match="`new_rows` must be of the kind"):
            model.update(rows)
    index = pd.date_range("2024-01-01", periods=1, freq="h")
    with pytest.raises(ValueError, match="`new_rows` must be of the kind"):
        model.update(pd.DataFrame(data[60:61], index=index, columns=[0, 1]))
    expected = model.predict([data[:61], data[:51]])
    model.predict([data[:60], data[:50]])
    found = model.update([data[60:61], data[50:51]])
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


@pytest.mark.once("torch")
def test_rows_of_another_time_zone_follow_and_those_of_none_do_not(model, data):
    index = pd.date_range("2024-03-30", periods=len(data), freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame(data, index=index, columns=[0, 1])
    expected = model.predict(frame)
    model.predict(frame[:60])
    with pytest.raises(ValueError, match="time zone and kind"):
        model.update(frame[60:].tz_localize(None))
    found = model.update(frame[60:].tz_convert("UTC"))
    assert (found.index == expected.index).all()
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.once("torch")
def test_a_backtest_with_refit_scores_all_windows_of_series_that_begin_late():
    values, dates = waves(60)[:, 1], pd.date_range("2024-01-01", periods=60, freq="D")
    late = pd.DataFrame({"unique_id": "a", "ds": dates[-7:], "y": values[-7:]})
    long = pd.DataFrame({"unique_id": "b", "ds": dates, "y": values})
    table = pd.concat([late, long])
    found = small().backtest(table, windows=3, refit=True, epochs=0, verbose=0)
    assert [part.shape for part in found.actual] == [(3, HORIZON, 1)] * 2
    assert [part.tolist() for part in found.origins] == [[-6, -2, 2], [47, 51, 55]]
    frame = found.frame()
    assert frame.groupby("unique_id").size().to_dict() == {"a": HORIZON, "b": 3 * HORIZON}
    both = frame.merge(table, on=["unique_id", "ds"])
    assert np.array_equal(both.y_x, both.y_y)
    assert found.scores["mse"] == pytest.approx(((frame.y - frame.forecast) ** 2).mean())
    assert found.scores["rmse"] == pytest.approx(found.scores["mse"] ** 0.5)
