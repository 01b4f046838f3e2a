from typing import TYPE_CHECKING, Any

from keras_ssm.checks import check_positive
from keras_ssm.plotting.figures import subplots
from keras_ssm.plotting.forecast_curves import forecast_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 8  # pictures


def plot_forecast(
    history: Any,
    forecast: Any,
    actual: Any = None,
    levels: list[float] | None = None,
    rows: int | None = None,
) -> "Figure":
    """Plots a forecast behind its history: one picture for each variable of each series.

    Args:
        history: array `(time, V)` or `(time,)`, list of such, or pandas frame: what `predict` read.
        forecast: what `predict` returned for it, with or without `lo-90` and `hi-90`.
        actual: what came, of the kind of the history, or `None`. Of a frame the rows of the
            forecast are drawn; an array begins with the forecast. Defaults to `None`.
        levels: percentages of the intervals to draw. Defaults to `None`: all that the forecast
            has.
        rows: int or `None`. Last rows of the history to draw. Defaults to `None`: four times as
            many as were forecast.

    Returns:
        `matplotlib.figure.Figure`, of the first eight variables where there are more.

    Raises:
        ValueError: for kinds that do not fit, or a level that the forecast does not have.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        x = np.sin(np.arange(100) / 5)
        model = keras_ssm.forecasting.SeasonalNaive(31, horizon=20).fit(x[:80], validation=40)
        figure = plot_forecast(x[:80], model.predict(levels=(80,)), actual=x[80:])
        ```
    """
    curves = forecast_curves(history, forecast, actual)[:MOST]
    figure, axes = subplots(len(curves), 1, figsize=(9, 0.6 + 2.4 * len(curves)))
    for axis, curve in zip(axes.ravel(), curves, strict=True):
        steps = 4 * len(curve.mean) if rows is None else check_positive(rows=rows)[0]
        axis.plot(curve.dates[-steps:], curve.past[-steps:], color="0.35", label="history")
        for number, level in enumerate(_levels(curve, levels)):
            low, high = curve.bands[level]
            shade = {"color": "C0", "alpha": 0.16 + 0.14 * number, "linewidth": 0}
            axis.fill_between(curve.steps, low, high, label=f"{level:g} %", **shade)
        if curve.actual is not None:
            axis.plot(curve.steps, curve.actual, color="0.35", linestyle=":", label="what came")
        axis.plot(curve.steps, curve.mean, color="C0", linewidth=1.8, label="forecast")
        axis.set_title(curve.name, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.01)
        _shorten_dates(axis)
    axes[0, 0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    figure.tight_layout()
    return figure


def _shorten_dates(axis):
    """Writes what all dates share once, at the end of the axis, so that they do not touch."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = axis.xaxis.get_major_locator()
    if isinstance(locator, AutoDateLocator):
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _levels(curve, levels):
    """The intervals to draw, the widest first, so that the narrower ones lie upon it."""
    chosen = list(curve.bands) if levels is None else [float(level) for level in levels]
    missing = [level for level in chosen if level not in curve.bands]
    if missing:
        raise ValueError(
            f"`levels` must be among those of the forecast, {sorted(curve.bands)}. "
            f"Received: levels={levels}"
        )
    return sorted(chosen, reverse=True)
