"""A forecaster that is adapted with few weights, rounded to eight bits, and begun anew."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMForecaster
from tests.backend_tools import relative_error
from tests.models.forecasting.test_forecaster import shaken, waves

pytestmark = pytest.mark.once("torch")

FIT = {"validation": 30, "steps_per_epoch": 2, "batch_size": 4, "verbose": 0}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=8, input_dim=1, prenorm=True)
    model = SSMForecaster(backbone, lookback=8, horizon=4)
    model.fit(waves(), epochs=0, **FIT)
    return shaken(model)


def test_lora_trains_its_updates_and_the_head_and_starts_where_the_model_was(model, tmp_path):
    x = waves()
    before, frozen = model.predict(x), model.backbone.get_weights()
    model.enable_lora(2)
    np.testing.assert_allclose(model.predict(x), before, rtol=1e-6)
    later = model.update(x[-1:])
    model.fit(x, epochs=1, keep=None, **{**FIT, "validation": 0})
    by_path = {w.path: keras.ops.convert_to_numpy(w) for w in model.backbone.weights}
    kept = [value for path, value in by_path.items() if "lora" not in path]
    for value, old in zip(kept, frozen, strict=True):
        np.testing.assert_array_equal(value, old)
    assert any(np.abs(v).max() > 0 for p, v in by_path.items() if "lora_kernel_b" in p)
    assert not np.allclose(model.update(x[-1:]), later)
    expected = model.predict(x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x), expected, rtol=1e-5)
    model.save_to_preset(tmp_path / "preset")
    merged = SSMForecaster.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(merged.predict(x), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="Received"):
        model.enable_lora(2)


def test_eight_bits_forecast_nearly_the_same(model, tmp_path):
    x = waves()
    before = model.predict(x)
    stream = model.stream()(x[:30])
    model.quantize("int8")
    modes = {
        layer.name: layer.quantization_mode
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense)
    }
    assert modes and set(modes.values()) == {"int8"}
    after = model.predict(x)
    scale = np.abs(before - x[-1]).max(axis=0)
    assert 0 < (np.abs(after - before) / scale).max() < 0.1
    assert (np.abs(model.stream()(x[:30]) - stream)[0, -1] / scale).max() < 0.1
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    for loaded in (
        SSMForecaster.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "model.keras"),
    ):
        np.testing.assert_allclose(loaded.predict(x), after, rtol=1e-5)
    np.testing.assert_allclose(model.predict(x), after, rtol=1e-6)


def test_reset_forgets_all_series_however_long(model):
    x = waves(60)
    series = [x[:37], x[:50, ::-1], x[5:26]]
    whole = model.predict(series)
    model.update([x[37:40], x[50:53], x[26:29]])
    model.reset()
    first = model.update([part[:n] for part, n in zip(series, (30, 50, 1), strict=True)])
    alone = model.predict([part[:n] for part, n in zip(series, (30, 50, 1), strict=True)])
    for a, b in zip(first, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    model.reset()
    model.update([part[:n] for part, n in zip(series, (30, 44, 1), strict=True)])
    second = model.update([series[0][30:], series[1][44:], series[2][1:]])
    for a, b in zip(second, whole, strict=True):
        assert relative_error(a, b) < 1e-5
    model.reset()
    model.update(x)  # one series in the place of three
    with pytest.raises(ValueError, match=r"no rows were read|`reset` begins anew"):
        model.update(series)


def test_another_sampling_rate_is_refused(model):
    with pytest.raises(ValueError, match=r"`rescaled` is not for forecasters.*Received: step"):
        model.rescaled(2.0)
