"""Fixed filters in front of a forecaster."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import Differencing
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")


def test_filters_are_differences_and_distances_from_moving_averages(rng):
    x = rng.standard_normal((2, 30, 3)).astype("float32")
    layer = Differencing(orders=3, windows=(5, 8), expand=True)
    y = to_numpy(layer(x)).reshape(2, 30, 5, 3)
    for order in range(3):
        expected = np.diff(x, n=order, axis=1, prepend=np.zeros((2, order, 3)))
        np.testing.assert_allclose(y[:, :, order], expected, atol=1e-5)
    for number, width in ((3, 5), (4, 8)):
        padded = np.pad(x, [(0, 0), (width - 1, 0), (0, 0)])
        mean = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).mean(axis=-1)
        np.testing.assert_allclose(y[:, :, number], x - mean, atol=1e-5)
    assert layer.trainable_variables == [] and layer.compute_output_shape(x.shape) == (2, 30, 15)


def test_features_take_turns_and_widths_are_drawn(rng):
    layer = Differencing(orders=2, windows=2, max_window=9, seed=3)
    layer.build((None, None, 8))
    taps = to_numpy(layer.taps)[0]
    assert (taps[[0, 4]] == np.eye(8 + 1)[0]).all()  # order 0
    assert (taps[[1, 5], :2] == [1, -1]).all()
    widths = (taps[[2, 3, 6, 7]] != 0).sum(axis=-1)
    assert set(widths) <= set(range(4, 9)) and len(set(widths)) > 1
    again = Differencing.from_config(layer.get_config())
    again.build((None, None, 8))
    np.testing.assert_array_equal(to_numpy(again.taps)[0], taps)


@pytest.mark.everywhere
@pytest.mark.parametrize("windows", [(5,), (70,)], ids=["few taps", "many"])
def test_a_constant_has_no_differences(windows):
    x = np.full((1, 150, 2), 1234567.0, "float32")
    y = to_numpy(Differencing(3, windows, expand=True)(x)).reshape(150, 4, 2)
    assert (y[:, 0] == x[0]).all() and (y[1:, 1] == 0).all() and (y[2:, 2] == 0).all()
    assert np.abs(y[70:, 3]).max() < 1e-6 * x.max()
    assert (
        relative_error(
            y[:70, 3, 0], x[0, :70, 0] * np.maximum(1 - np.arange(1, 71) / windows[0], 0)
        )
        < 1e-6
    )


def test_drawn_widths_are_those_of_every_feature_that_is_expanded():
    layer = Differencing(2, 3, max_window=9, expand=True, seed=0)
    layer.build((None, None, 4))
    taps = to_numpy(layer.taps)
    assert (taps == taps[:, :1]).all() and len(np.unique(taps[2:, 0], axis=0)) > 1


def test_it_streams_and_goes_to_files(rng, tmp_path):
    x = rng.standard_normal((2, 30, 6)).astype("float32")
    model = keras.Sequential([keras.Input((None, 6)), Differencing(3, (4,), seed=0)])
    whole = model.predict(x, verbose=0)
    (layer,) = model.layers
    for method in ("fft", "direct", "recurrent"):
        other = Differencing(3, (4,), method=method)
        first, state = other(x[:, :11], return_state=True)
        rest, state = other(x[:, 11:29], initial_state=state, return_state=True)
        last, _ = other.step(x[:, 29], state)
        parts = [to_numpy(first), to_numpy(rest), to_numpy(last)[:, None]]
        assert relative_error(np.concatenate(parts, axis=1), whole) < 1e-6, method
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), whole)
    with pytest.raises(ValueError, match=r"`step_scale` of .* no dt. Received: step_scale=2"):
        layer.step_scale = 2.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"orders": 0},
        {"windows": -1},
        {"windows": (1,)},
        {"windows": 2.5},
        {"min_window": 64},
        {"bidirectional": True},
        {"max_length": 5},
        {"channels": 2},
    ],
)
def test_sizes_that_there_are_not_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        Differencing(**arguments)
