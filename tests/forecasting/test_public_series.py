"""Series that nobody here prepared, by the road of a data frame."""

import keras
import pytest

from keras_ssm.forecasting import SeasonalNaive
from keras_ssm.models import SSMForecaster

pytestmark = pytest.mark.once("torch")


@pytest.mark.parametrize(
    ("name", "horizon", "lookback", "season"), [("co2", 52, 104, None), ("sunspots", 11, 22, 11)]
)
def test_the_last_tenth_is_forecast_better_than_by_the_last_season(name, horizon, lookback, season):
    datasets = pytest.importorskip("statsmodels.datasets")
    data = getattr(datasets, name).load_pandas().data
    # Years are numbers; weeks without a measurement are not there at all.
    data = data.set_index("YEAR")["SUNACTIVITY"] if name == "sunspots" else data.dropna()
    rows = len(data) // 10
    train = data.iloc[:-rows]
    keras.utils.set_random_seed(0)
    model = SSMForecaster(lookback=lookback, horizon=horizon)
    model.fit(train, epochs=1, steps_per_epoch=5, season=season, verbose=0)
    last = SeasonalNaive(season, horizon).fit(train)
    ours, theirs = (m.evaluate(data, rows=rows) for m in (model, last))
    assert ours["mase"] < 0.8 * theirs["mase"]
    assert ours["mase"] / ours["mae"] == pytest.approx(theirs["mase"] / theirs["mae"])
    forecast = model.predict(levels=80)
    assert len(forecast) == horizon and list(forecast)[1:] == ["lo-80", "hi-80"]
    assert forecast.index[0] == data.index[len(train)]
