"""A forecaster whose horizon is the closed loop of a SpaceTime layer."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import SpaceTime
from keras_ssm.models import SSMBackbone, SSMForecaster
from tests.backend_tools import relative_error, to_numpy, with_cheap_loops
from tests.models.forecasting.test_forecaster import shaken, waves

LOOKBACK, HORIZON = 8, 5
FIT = {"validation": 30, "epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "verbose": 0}


def small(width=1, decoder=None, **arguments):
    mixer = SpaceTime(4, seed=0)
    backbone = SSMBackbone(mixer, 1, hidden_dim=6, input_dim=width, prenorm=True)
    decoder = decoder or SpaceTime(3, skip=False, closed_loop=True, num_ssm=2, seed=1)
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON}
    return SSMForecaster(backbone, head="closed_loop", decoder=decoder, **sizes, **arguments)


@pytest.fixture(scope="module")
def data():
    x = waves(100)
    x[30:33, 0] = np.nan
    return x


@pytest.fixture(scope="module")
def model(data):
    keras.utils.set_random_seed(0)
    model = small()
    model.fit(data, **FIT)
    return shaken(model)


def test_a_forecast_is_the_loop_after_the_last_row(model, data):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 20, 1)).astype("float32")

    def forecasts(inputs):
        values, deviation = model.running(inputs["inputs"])
        hidden = model.backbone({"inputs": values, "padding_mask": inputs["padding_mask"]})
        _, state = model.decoder(hidden, return_state=True)
        added = []
        for _ in range(HORIZON):  # y, and the predicted input as the next one
            outputs, following = model.decoder.forecast(state, 1)
            y = model.head_layer.output_dense(ops.gelu(outputs[:, 0], approximate=True))
            added.append(deviation[:, -1] * y)
            _, state = model.decoder.step(following[:, 0], state)
        found = model(inputs)[:, 0, :, 0]
        return found, model.shortcut(inputs["window"])[:, 0] + ops.concatenate(added, axis=1)

    assert relative_error(*with_cheap_loops(forecasts)(model.standardize(x))) < 1e-5


def test_rows_that_come_one_by_one_give_the_same(model, data):
    """Of pieces of few lengths: a backend that compiles does so for each."""
    whole = model.predict(data[:60])
    model.predict(data[:40])
    model.update(data[40:50])
    assert relative_error(model.update(data[50:60]), whole) < 1e-5


@pytest.mark.once("torch")
def test_a_backtest_forecasts_what_was_known_then(model, data):
    found = model.backtest(data, windows=2, step=2).forecasts["mean"][0]
    for window, cut in enumerate((93, 95)):
        assert relative_error(found[window], model.predict(data[:cut])) < 1e-5


@pytest.mark.once("torch")
def test_files_hold_the_decoder(model, data, tmp_path):
    whole = model.predict(data)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.saving.load_model(tmp_path / "model.keras"),
        SSMForecaster.from_preset(tmp_path / "preset"),
    ):
        assert loaded.decoder.num_ssm == 2
        np.testing.assert_allclose(loaded.predict(data), whole, rtol=1e-6)
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config() and clone.decoder is not model.decoder


@pytest.mark.once("torch")
def test_training_moves_the_loop(data):
    model = small()
    before = {w.path: to_numpy(w) for w in model.decoder.weights}
    model.fit(data, **{**FIT, "validation": 0, "epochs": 2})
    moved = {w.name for w in model.decoder.weights if (to_numpy(w) != before[w.path]).any()}
    assert moved == {"a", "B", "C", "K"}


@pytest.mark.once("torch")
def test_quantiles_and_known_covariates(data):
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2, 100).astype(float)
    table = np.stack([data[:, 1] + 9 * known, known], axis=1)
    model = small(width=2, known=(1,), target=(0,), quantiles=(0.1, 0.5, 0.9))
    model.fit(table[:80], **FIT)
    plans = table[80:, 1:]
    found = model.predict(table[:80], future=plans)
    lower, middle, upper = (
        found["lo-80"],
        found["mean" if "mean" in found else "q-50"],
        found["hi-80"],
    )
    assert (lower <= middle).all() and (middle <= upper).all() and lower.shape == (HORIZON, 1)
    shaken(model)
    assert not np.allclose(
        model.predict(table[:80], future=plans)["hi-80"],
        model.predict(table[:80], future=1 - plans)["hi-80"],
    )


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments",
    [
        {"decoder": SpaceTime(3)},
        {"decoder": SpaceTime(3, skip=False, closed_loop=True, channels=2)},
        {"decoder": "space_time"},
    ],
)
def test_what_is_no_decoder_is_refused(arguments):
    with pytest.raises(ValueError, match=r"`decoder`.*Received"):
        small(**arguments)
    with pytest.raises(ValueError, match=r"head='closed_loop'.*Received: head='direct'"):
        SSMForecaster(horizon=3, decoder=SpaceTime(3, skip=False, closed_loop=True))
