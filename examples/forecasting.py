"""Forecasts your own series: trains, compares, draws, saves, and goes on with new rows.

    python examples/forecasting.py                        # makes hourly data of its own
    python examples/forecasting.py --data own.csv --time date --horizon 24 --lookback 168

The file has a column of dates and one for each variable; values and whole rows may be missing.
With a column `unique_id` it holds several series, one under the other, and `y` is what is forecast.
The last tenth is kept apart: nothing is learned from it, and all forecasts are compared on it. The
mean absolute scaled error (MASE) counts errors in units of the change from season to season.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_ssm import forecasting, models, plotting


def made_up(rows):
    """Two hourly series with a day, a week, noise that lasts, and gaps."""
    rng = np.random.default_rng(0)
    hours = np.arange(rows)
    noise = np.zeros((rows, 2))
    for t in range(1, rows):
        noise[t] = 0.9 * noise[t - 1] + 0.1 * rng.normal(size=2)
    day = np.sin(2 * np.pi * hours / 24)[:, None] * [1.0, 0.5]
    week = 0.5 * (hours // 24 % 7 < 5)[:, None]
    values = (3 + day + week + noise) * [100.0, 1.0]
    index = pd.date_range("2024-01-01", periods=rows, freq="h", name="date")
    frame = pd.DataFrame(values, columns=["load", "price"], index=index)
    frame.loc[frame.index[rows // 4 : rows // 4 + 20], "load"] = np.nan
    return frame.drop(frame.index[rows // 2 : rows // 2 + 10])


def read(path, time):
    data = pd.read_csv(path, parse_dates=[time])
    if "unique_id" in data:
        return data.rename(columns={time: "ds"})
    return data.set_index(time)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="csv with a column of dates")
    parser.add_argument("--rows", type=int, default=2400, help="made here (default: %(default)s)")
    parser.add_argument("--time", default="date", help="its name (default: %(default)s)")
    parser.add_argument("--horizon", type=int, default=24, help="rows ahead (default: %(default)s)")
    parser.add_argument("--lookback", type=int, default=168, help="default: %(default)s")
    parser.add_argument("--season", type=int, help="rows of a season; default: that of the dates")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=50, help="an epoch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/forecast"), help="a folder")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)

    data = made_up(args.rows) if args.data is None else read(args.data, args.time)
    panel = forecasting.Panel.read(data)
    index = max((series.index for series in panel.series), key=len)
    rows = len(index) // 10
    later = data.get("ds", data.index) >= index[-rows]
    train = data[~later]
    season = args.season or panel.season() or 1
    print(f"{len(panel.series)} series of {panel.variables}, every {panel.freq}, season {season}")

    model = models.SSMForecaster(lookback=args.lookback, horizon=args.horizon)
    compared = {
        "naive": forecasting.Naive(args.horizon),
        "seasonal naive": forecasting.SeasonalNaive(season, args.horizon),
        "ridge": forecasting.Ridge(args.lookback, args.horizon),
        "SSMForecaster": model,
    }
    model.fit(train, epochs=args.epochs, steps_per_epoch=args.steps, season=season, verbose="auto")
    for name, forecaster in compared.items():
        if forecaster is not model:
            forecaster.fit(train, season=season)
        scores = forecaster.evaluate(data, rows=rows)
        print(f"{name:>15}: MASE {scores['mase']:.3f}, MAE {scores['mae']:.4g} on {rows} rows")
    print(f"kept the weights after epoch {model.fitted['epoch']}; 0 is the linear model alone")

    args.out.mkdir(parents=True, exist_ok=True)
    forecast = model.predict(train, levels=(80, 95))
    plotting.plot_forecast(train, forecast, data).savefig(args.out / "forecast.png")

    # Rows that arrive: only they are read, and the forecast is that of the whole history.
    forecast = model.update(data[later], levels=80)
    forecast.to_csv(args.out / "forecast.csv", index="ds" not in data)
    print(f"the next {args.horizon} rows stand in {args.out / 'forecast.csv'}")

    model.save_to_preset(args.out / "preset")
    loaded = models.SSMForecaster.from_preset(args.out / "preset")
    same = np.allclose(
        loaded.predict(data).select_dtypes("number"), model.predict(data).select_dtypes("number")
    )
    print(f"loaded from {args.out / 'preset'}: the same forecast: {same}")


if __name__ == "__main__":
    main()
