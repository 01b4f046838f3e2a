"""Pictures of forecasts: what stands in them, for each kind of data."""

import numpy as np
import pandas as pd
import pytest

from keras_ssm.forecasting import Naive, SeasonalNaive
from keras_ssm.plotting import plot_forecast

pytest.importorskip("matplotlib")

pytestmark = pytest.mark.once("torch")

X = np.arange(60.0)[:, None] + np.array([0.0, 100.0])


def line(axis, label):
    (found,) = [line for line in axis.lines if line.get_label() == label]
    return found


def band(axis, number=0):
    """Lowest and highest value of a band."""
    values = axis.collections[number].get_paths()[0].vertices[:, 1]
    return values.min(), values.max()


def test_arrays():
    model = SeasonalNaive(5, 4).fit(X[:50], validation=30)
    figure = plot_forecast(X[:50], model.predict(levels=(80, 50)), X[50:], rows=10)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["variable 0", "variable 1"]
    first, second = figure.axes
    np.testing.assert_array_equal(
        line(first, "history").get_xydata(), [[t, t] for t in range(40, 50)]
    )
    np.testing.assert_array_equal(
        line(first, "forecast").get_xydata(), [[50 + i, 45 + i] for i in range(4)]
    )
    np.testing.assert_array_equal(line(second, "what came").get_ydata(), X[50:54, 1])
    assert [patch.get_label() for patch in first.collections] == ["80 %", "50 %"]
    assert band(first) == (40, 53)  # all validation errors are 5
    one = plot_forecast(X[:, 0], Naive(3).fit(X[:, 0]).predict(), X[:2, 0])
    assert np.isnan(line(one.axes[0], "what came").get_ydata()[2])
    assert len(line(one.axes[0], "history").get_xdata()) == 12 and not one.axes[0].collections
    several = [X[:30], X[:40]]
    model = Naive(3).fit(several)
    figure = plot_forecast(several, model.predict(levels=(50,)), [part[-3:] for part in several])
    assert len(figure.axes) == 4 and figure.axes[2].get_title(loc="left") == "series 1, variable 0"
    batch = np.stack([X[:, :1]] * 2)
    assert len(plot_forecast(batch, Naive(3).fit(batch).predict(levels=(50,))).axes) == 2


def test_frames(tmp_path):
    index = pd.date_range("2024-01-31", periods=60, freq="ME")
    frame = pd.DataFrame(X, columns=["a", "b"], index=index)
    past = frame.iloc[:50].drop(index=index[45])
    forecast = Naive(4).fit(past, validation=20).predict(levels=(80,))
    figure = plot_forecast(past, forecast, frame)
    first = figure.axes[1]
    assert first.get_title(loc="left") == "b"
    assert len(first.collections) == 1 and np.isnan(line(first, "history").get_ydata()).sum() == 1
    np.testing.assert_array_equal(line(first, "what came").get_ydata(), X[50:54, 1])
    assert list(line(first, "forecast").get_xdata()) == list(index[50:54])
    figure.savefig(tmp_path / "forecast.png")
    years = frame["a"].set_axis(pd.period_range("1900", periods=60, freq="Y"))
    plot_forecast(years, Naive(4).fit(years).predict()).savefig(tmp_path / "years.png")
    parts = [frame[["a"]].set_axis(["y"], axis=1).assign(unique_id=name) for name in "pq"]
    long = pd.concat(parts).rename_axis("ds").reset_index()
    forecast = Naive(4).fit(long[long["ds"] < index[50]], validation=20).predict(levels=(80,))
    figure = plot_forecast(long[long["ds"] < index[50]].assign(text="x"), forecast, long)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["p", "q"]
    np.testing.assert_array_equal(line(figure.axes[1], "what came").get_ydata(), X[50:54, 0])
    assert len(figure.axes[1].collections) == 1


def test_what_does_not_fit_is_refused():
    frames = pd.DataFrame(X[:9]), pd.DataFrame(X[9:12], range(9, 12))
    forecast = Naive(3).fit(X, validation=30).predict(levels=(50,))
    for arguments, message in [
        ((X, forecast, None, [90]), "among those of the forecast, \\[50.0\\]"),
        ((X[:, :1], forecast), "the 1 variables of `history`"),
        (([X, X], [forecast]), "the 2 series of `history`"),
        ((pd.DataFrame(X), pd.DataFrame(X, columns=["a", "b"])), "columns of `history`"),
        ((*frames, frames[0]), "9 to 11"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            plot_forecast(*arguments)
        assert "Received: " in str(error.value)
