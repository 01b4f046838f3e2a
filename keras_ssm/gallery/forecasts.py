"""Pictures of a forecaster."""

import math

import numpy as np

from keras_ssm.forecasting import Naive, SeasonalNaive
from keras_ssm.plotting import plot_step_errors
from keras_ssm.plotting.figures import subplots

WINDOWS = 60  # an error curve is the mean over so many
LEVEL = 80  # percent


def pictures(subject):
    """Three windows of the test part with their forecasts, and the error over the horizon."""
    return {"samples.png": _windows(subject), "errors.png": _errors(subject)}


def _windows(subject):
    model, part = subject.model, subject.part
    horizon = model.horizon
    figure, axes = subplots(3, 1, figsize=(8.5, 5.6))
    for window, axis in enumerate(axes.ravel()):
        data = np.asarray(part.data[window * (len(part.data) - 1) // 2])
        end = len(data) - part.rows + window * max(0, part.rows - horizon) // 2
        variable = window * (data.shape[1] - 1) // 2
        forecast = model.predict(data[:end], levels=LEVEL)
        past = np.arange(max(0, end - 2 * horizon), end)
        steps = np.arange(end, end + horizon)
        low, high = (forecast[f"{side}-{LEVEL}"][:, variable] for side in ("lo", "hi"))
        axis.plot(past, data[past, variable], color="0.35", linewidth=0.9, label="history")
        axis.fill_between(steps, low, high, color="C0", alpha=0.2, linewidth=0, label=f"{LEVEL} %")
        actual = data[end : end + horizon, variable]
        axis.plot(steps, actual, color="0.35", linewidth=0.9, linestyle=":", label="what came")
        axis.plot(steps, forecast["mean"][:, variable], color="C0", label="forecast")
        series = f"series {window * (len(part.data) - 1) // 2 + 1}, " * (len(part.data) > 1)
        axis.set_title(f"{series}variable {variable + 1}", loc="left", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.01)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    axes[-1, 0].set_xlabel("rows of the series")
    figure.tight_layout()
    return figure, (
        "Three windows of the test part, at its beginning, middle and end, with forecasts, their "
        f"intervals of {LEVEL} %, and what came."
    )


def _errors(subject):
    model, recipe, part = subject.model, subject.recipe, subject.part
    step = max(1, (part.rows - model.horizon) // WINDOWS)
    while math.gcd(step, recipe.season) > 1:  # windows begin at every hour of the day
        step -= 1
    windows = min(2 * WINDOWS, (part.rows - model.horizon) // step + 1)
    history = [np.asarray(x)[: len(x) - part.rows] for x in part.data]
    baselines = {"last value": Naive(model.horizon)}
    if recipe.season > 1:
        baselines[f"last season, {recipe.season} rows"] = SeasonalNaive(
            recipe.season, model.horizon
        )
    curves = {"this preset": _curve(model, part.data, windows, step)}
    for name, baseline in baselines.items():
        baseline.fit(history)
        curves[name] = _curve(baseline, part.data, windows, step)
    figure = plot_step_errors(curves, xlabel="rows ahead", ylabel="mean square error")
    return figure, (
        f"Mean square error against the rows ahead, over {windows} windows of each series in the "
        "test part."
    )


def _curve(model, data, windows, step):
    backtest = model.backtest(data, windows=windows, step=step)
    pairs = zip(backtest.forecasts["mean"], backtest.actual, strict=True)
    errors = [(forecast - actual) ** 2 for forecast, actual in pairs]
    return np.nanmean(np.concatenate(errors), axis=(0, 2))
