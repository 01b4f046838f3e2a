"""A forecast of the columns of a CSV file, by a forecaster that is fitted on that file."""

from typing import TYPE_CHECKING, NamedTuple

import keras

from keras_ssm.forecasting import Naive
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMForecaster
from keras_ssm.types import PathLike

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS, MOST_COLUMNS = 4000, 6
LEAST_ROWS = 60
LEVEL = 80


class Table(NamedTuple):
    """The columns of a file that can be forecast.

    Fields:
        data: pandas `DataFrame` of numbers, by its dates where it has any.
        notes: list of str. What was left out.
    """

    data: "pd.DataFrame"
    notes: list[str]


class Forecast(NamedTuple):
    """A forecast of a table.

    Fields:
        data: pandas `DataFrame`. The table.
        forecast: pandas `DataFrame`, with `lo-80` and `hi-80` of each column.
        scores: dict. Of forecasts of the last rows, which were not learned from: `rows`, `mae` of
            the forecaster, `naive` of repeating the last value, and `coverage`, the share of
            values within the interval.
        notes: list of str. Sentences on how it was made.
    """

    data: "pd.DataFrame"
    forecast: "pd.DataFrame"
    scores: dict[str, float]
    notes: list[str]


def read_table(path: PathLike) -> Table:
    """Reads the columns of numbers in a CSV file, by their dates.

    The first column of text that can be read as dates is the index; other text is left out.

    Args:
        path: str or `Path`.

    Returns:
        `Table`, of the last 4,000 rows and the first six columns.

    Raises:
        ValueError: for a file that is no table, or has no numbers or fewer than 60 rows.
        ImportError: if pandas is not installed.

    Example:
        ```python
        days = [f"2024-{1 + i // 28:02}-{1 + i % 28:02},{i % 7}" for i in range(100)]
        _ = open("shop.csv", "w").write("day,sales\\n" + "\\n".join(days))
        table = keras_ssm.web.read_table("shop.csv")
        ```
    """
    import pandas as pd

    try:
        data = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"`path` must be a CSV file. Received: '{path}': {error}") from error
    data, notes = _by_dates(data), []
    numbers = data.select_dtypes("number").astype("float64")
    numbers = numbers.loc[:, ~numbers.isna().all()]
    if left_out := [str(name) for name in data.columns if name not in numbers.columns]:
        notes.append(f"Left out, as they hold no numbers: {', '.join(left_out)}.")
    if numbers.shape[1] > MOST_COLUMNS:
        notes.append(f"The first {MOST_COLUMNS} of {numbers.shape[1]} columns are shown.")
    if len(numbers) > MOST_ROWS:
        notes.append(f"The last {MOST_ROWS:,} of {len(numbers):,} rows are read.")
    numbers = numbers.iloc[-MOST_ROWS:, :MOST_COLUMNS]
    if not numbers.shape[1] or len(numbers) < LEAST_ROWS:
        raise ValueError(
            f"`path` must have a column of numbers and at least {LEAST_ROWS} rows. "
            f"Received: {numbers.shape[1]} columns of numbers, {len(data)} rows"
        )
    return Table(numbers, notes)


def forecast_table(
    path: PathLike, horizon: int | None = None, steps: int = 60, seed: int = 0
) -> Forecast:
    """Fits a small `SSMForecaster` on a CSV file and forecasts how it goes on.

    The last rows, a sixth of all, are not learned from: they say how good the forecaster is, beside
    repeating the last value. The forecast itself reads them.

    Args:
        path: str or `Path`. See `read_table`.
        horizon: int or `None`. Rows to forecast, at most a twelfth of all. Defaults to `None`:
            that, and at most 48.
        steps: int. Steps of training. Defaults to `60`.
        seed: int. Defaults to `0`.

    Returns:
        `Forecast`.

    Raises:
        ValueError: as `read_table`, for a horizon below 1, or as `SSMForecaster.fit` does for
            dates that are no series.

    Example:
        ```python
        rows = "\\n".join(str(np.sin(i / 4)) for i in range(120))
        _ = open("wave.csv", "w").write("wave\\n" + rows)
        found = keras_ssm.web.forecast_table("wave.csv", horizon=6, steps=2)
        found.forecast  # wave, and lo-80, hi-80 where the file is long enough
        ```
    """
    table = read_table(path)
    count = len(table.data)
    longest = count // 12
    horizon = min(48 if horizon is None else int(horizon), longest)
    if horizon < 1:
        raise ValueError(f"`horizon` must be at least 1. Received: horizon={horizon}")
    held_out = max(count // 6, horizon)
    lookback = min(96, (count - held_out) // 4)
    keras.utils.set_random_seed(seed)
    backbone = SSMBackbone(
        S4D(state_dim=32, seed=seed), num_layers=1, hidden_dim=32, prenorm=True, final_norm="layer"
    )
    model = SSMForecaster(backbone, lookback=lookback, horizon=horizon)
    training_rows = table.data.iloc[:-held_out]
    model.fit(training_rows, epochs=1, steps_per_epoch=steps, verbose=0)
    levels = [level for level, _ in model.fitted["half_widths"] if level == LEVEL]
    scores = model.evaluate(table.data, rows=held_out, levels=levels or None)
    naive = Naive(horizon).fit(training_rows).evaluate(table.data, rows=held_out)
    forecast = model.predict(table.data, levels=levels or None)
    measured = {"rows": held_out, "mae": scores["mae"], "naive": naive["mae"]}
    notes = [*table.notes, *_notes(model, count, held_out, lookback)]
    if levels:
        measured["coverage"] = scores[f"coverage_{LEVEL}"]
    else:
        notes.append("The file is too short to say how wide an interval must be: there is none.")
    return Forecast(table.data, forecast, measured, notes)


def in_words(scores: dict[str, float]) -> str:
    """What the scores of a `Forecast` say, as Markdown."""
    better = scores["mae"] < scores["naive"]
    text = (
        f"**On the last {scores['rows']:,} rows, which it did not learn from**, the mean absolute "
        f"error is {scores['mae']:.4g}; repeating the last value has {scores['naive']:.4g}. "
        + ("" if better else "**Here the forecaster is no better than that.** ")
    )
    if "coverage" in scores:
        text += f"{100 * scores['coverage']:.0f} % of the values lay within the {LEVEL} % interval."
    return text


def _notes(model, count, held_out, lookback):
    ridge = model.fitted["epoch"] == 0
    return [
        f"No preset knows your data: a small `SSMForecaster` was fitted on the first "
        f"{count - held_out:,} rows of this file. It is a ridge regression on the last {lookback} "
        "rows and a state-space branch that adds what it has learned. "
        + (
            "Training added nothing that helped on its validation part: this is the ridge "
            "regression alone."
            if ridge
            else "Training helped on its validation part, and is part of the forecast."
        )
    ]


def _by_dates(data):
    """A frame whose index is its first column of dates, where it has one."""
    import pandas as pd

    for name in data.columns:
        if data[name].dtype.kind in "iufb" or not len(data):
            continue
        dates = pd.to_datetime(data[name], errors="coerce", format="mixed")
        if dates.notna().all():
            return data.drop(columns=[name]).set_index(pd.DatetimeIndex(dates, name=str(name)))
    return data
