"""A forecast and its history as curves, for every kind of data."""

import re
from typing import Any, NamedTuple

import numpy as np

from keras_ssm.forecasting import Panel

ID, TIME = "unique_id", "ds"
LOW = re.compile(r"^(?:(.*)-)?lo-([0-9.]+)$")


class Curve(NamedTuple):
    """One variable of one series: its past, its forecast, and bands by their level."""

    name: str
    dates: Any
    past: np.ndarray
    steps: Any
    mean: np.ndarray
    bands: dict
    actual: np.ndarray | None


def forecast_curves(history, forecast, actual=None):
    """List of `Curve`; see `plot_forecast`."""
    if hasattr(forecast, "index") and hasattr(history, "index") and not isinstance(history, list):
        curves = _of_frames(history, forecast, actual)
        if actual is not None and all(np.isnan(curve.actual).all() for curve in curves):
            steps = curves[0].steps
            raise ValueError(
                f"`actual` must have values in rows of the forecast, {steps[0]} to {steps[-1]}. "
                f"Received: {len(actual)} rows without one"
            )
        return curves
    panel = Panel.read(history)
    form = _form(history)
    tables = _tables(forecast, form, len(panel.series))
    actual_tables = (
        [None] * len(tables) if actual is None else _tables(actual, form, len(panel.series))
    )
    curves = []
    for number, (series, table, later) in enumerate(
        zip(panel.series, tables, actual_tables, strict=True)
    ):
        rows, width = series.values.shape
        horizon = len(table["mean"])
        if table["mean"].shape[1] != width:
            raise ValueError(
                f"`forecast` must have the {width} variables of `history`. "
                f"Received: shape {table['mean'].shape}"
            )
        for index in range(width):
            bands = {
                float(LOW.match(name)[2]): (
                    part[:, index],
                    table[name.replace("lo-", "hi-")][:, index],
                )
                for name, part in table.items()
                if LOW.match(name)
            }
            names = [f"series {number}"] * (len(tables) > 1) + [f"variable {index}"] * (width > 1)
            ahead = None if later is None else _first(later["mean"][:, index], horizon)
            steps = np.arange(rows, rows + horizon)
            mean = table["mean"][:, index]
            past = series.values[:, index]
            curves.append(Curve(", ".join(names), np.arange(rows), past, steps, mean, bands, ahead))
    return curves


def _form(history):
    if isinstance(history, (list, tuple)) and len(history) and not np.isscalar(history[0]):
        return "list"
    return "batch" if np.ndim(history) == 3 else "one"


def _tables(values, form, count):
    """Dicts of arrays `(rows, V)`, one for each series."""
    if form == "list":
        parts = list(values)
    elif form == "batch" and isinstance(values, dict):
        parts = [{name: part[i] for name, part in values.items()} for i in range(count)]
    else:
        parts = list(values) if form == "batch" else [values]
    if len(parts) != count:
        raise ValueError(
            f"`forecast` must have the {count} series of `history`. Received: {len(parts)}"
        )
    dicts = [part if isinstance(part, dict) else {"mean": part} for part in parts]
    return [
        {name: np.asarray(array, "float64").reshape(len(array), -1) for name, array in part.items()}
        for part in dicts
    ]


def _first(values, horizon):
    return np.concatenate([values[:horizon], np.full(max(0, horizon - len(values)), np.nan)])


def _of_frames(history, forecast, actual):
    history, forecast, actual = map(_frame, (history, forecast, actual))
    if TIME in forecast.columns:
        return _of_long(history, forecast, actual)
    names = [name for name in forecast.columns if name in history.columns]
    if not names:
        raise ValueError(
            f"`forecast` must have columns of `history`, {list(history.columns)}. "
            f"Received: columns={list(forecast.columns)}"
        )
    (series,) = Panel.read(history[names]).series
    after = None if actual is None else actual.reindex(forecast.index)
    curves = []
    for index, name in enumerate(names):
        later = None if after is None else after[name].to_numpy("float64", na_value=np.nan)
        title = "" if len(names) == 1 else str(name)
        past = series.values[:, index]
        dates = (_dates(series.index), past, _dates(forecast.index))
        mean = forecast[name].to_numpy("float64")
        curves.append(Curve(title, *dates, mean, _bands(forecast, name, names), later))
    return curves


def _of_long(history, forecast, actual):
    keys = [key for key in (ID, TIME) if key in forecast.columns]
    names = [name for name in forecast.columns if name in history.columns and name not in keys]
    curves = []
    ids = forecast[ID].unique() if ID in keys else [None]
    for identity in ids:
        parts = [
            _select(frame, identity, keys, names if number else None)
            for number, frame in enumerate((forecast, history, actual))
        ]
        for curve in _of_frames(parts[1], parts[0], parts[2]):
            title = [str(identity)] * (identity is not None) + [curve.name] * bool(curve.name)
            curves.append(curve._replace(name=", ".join(title)))
    return curves


def _select(frame, identity, keys, names):
    """The rows of one series, with its dates as the index."""
    if frame is None:
        return None
    if identity is not None:
        frame = frame[frame[ID] == identity]
    wide = frame.set_index(TIME).drop(columns=[key for key in keys if key != TIME])
    return wide if names is None else wide[names]


def _frame(data):
    return data.to_frame() if getattr(data, "ndim", 2) == 1 else data


def _bands(forecast, variable, variables):
    bands = {}
    for name in forecast.columns:
        match = LOW.match(str(name))
        is_variable = match and match[1] == (None if len(variables) == 1 else str(variable))
        if is_variable:
            high = forecast[str(name).replace("lo-", "hi-")]
            low = forecast[name]
            bands[float(match[2])] = (low.to_numpy("float64"), high.to_numpy("float64"))
    return bands


def _dates(index):
    return index.to_timestamp() if hasattr(index, "to_timestamp") else index
