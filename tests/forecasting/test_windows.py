"""Windows of a series, and the ridge regression on them."""

import numpy as np
import pytest

from keras_ssm.forecasting import best_ridge, ridge_weights, windows

pytestmark = pytest.mark.once("torch")


def test_windows_are_views_and_the_last_one_is_there(rng):
    values = rng.normal(size=(23, 2))
    for step in (1, 2, 3, 7, 100):
        histories, targets = windows(values, 5, 3, step)
        assert np.shares_memory(histories, values) and np.shares_memory(targets, values)
        starts = range((23 - 8) % step, 23 - 8 + 1, step)
        assert len(histories) == len(targets) == len(starts)
        for start, history, target in zip(starts, histories, targets, strict=True):
            np.testing.assert_array_equal(history, values[start : start + 5])
            np.testing.assert_array_equal(target, values[start + 5 : start + 8])
        np.testing.assert_array_equal(targets[-1], values[-3:])
    assert windows(values[:, 0], 5, 3)[0].shape == (16, 5)
    with pytest.raises(ValueError, match="Received: rows=23, lookback=20, horizon=4"):
        windows(values, 20, 4)


def test_ridge_is_the_solution_of_the_normal_equations(rng):
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.normal(size=(40, 3))
    for alpha in (0.0, 2.5):
        wide = x.astype("float64")
        expected = np.linalg.solve(wide.T @ wide + alpha * np.eye(6), wide.T @ y)
        found = ridge_weights(x, y, alpha)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    # Fewer rows than columns.
    least = np.linalg.lstsq(x[:4].astype("float64"), y[:4], rcond=None)[0]
    np.testing.assert_allclose(ridge_weights(x[:4], y[:4], 0.0), least, atol=1e-6)


def test_unknown_targets_count_in_no_sum(rng):
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 3))
    y[5:9, 1] = np.nan
    y[::2, 2] = np.nan
    found = ridge_weights(x, y, 1.5)
    for step in range(3):
        kept = ~np.isnan(y[:, step])
        single = ridge_weights(x[kept], y[kept, step : step + 1], 1.5)
        np.testing.assert_allclose(found[:, step], single[:, 0], rtol=1e-9)


def test_the_penalty_is_that_of_the_smallest_validation_error(rng):
    x, w = rng.normal(size=(90, 30)), rng.normal(size=(30, 2)) / 5
    y = x @ w + rng.normal(size=(90, 2))
    y[-3, 1] = np.nan
    train, validation = (x[:45], y[:45]), (x[45:], y[45:])
    alphas = [0.01, 1.0, 30.0, 1e5]
    errors = [np.nanmean((x[45:] @ ridge_weights(*train, a) - y[45:]) ** 2) for a in alphas]
    halves = [(x[:20], y[:20]), (x[20:45], y[20:45])]
    weights, alpha = best_ridge(halves, [validation], alphas)
    assert alpha == alphas[np.argmin(errors)] == 30.0
    np.testing.assert_allclose(weights, ridge_weights(*train, alpha), rtol=1e-9)
    scaled, other = best_ridge([(1e3 * x[:45], y[:45])], [(1e3 * x[45:], y[45:])])
    plain, alpha = best_ridge([train], [validation])
    np.testing.assert_allclose(1e3 * scaled, plain, rtol=1e-6)
    np.testing.assert_allclose(other, 1e6 * alpha)


def test_ridge_refuses(rng):
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(9, 3))
    wrong = np.where(np.arange(3) == 1, np.nan, y)
    for arguments, message in [
        ((x[:5], y), "`windows` must be"),
        ((x[..., None], y), "`windows` must be"),
        ((np.where(x > 0, np.nan, x), y), "must be finite"),
        ((x, y, -1.0), "alpha=-1.0"),
        ((x, wrong), r"known=\[9, 0, 9\] of 9 windows"),
    ]:
        with pytest.raises(ValueError, match=message):
            ridge_weights(*arguments)
