"""Forecasts as the kind of data that the history was."""

import numpy as np

from keras_ssm.forecasting.time_index import continued, pandas


def forecast_like(panel, layout, freq, forecasts, horizon=None):
    """See `Panel.frame`."""
    arrays = {name: [np.asarray(array) for array in lists] for name, lists in forecasts.items()}
    _check(panel, arrays, horizon)
    if layout.kind == "numpy":
        return _arrays(layout.form, arrays)
    if layout.form == "long":
        pd = pandas()
        parts = []
        for number, series in enumerate(panel.series):
            columns = _columns(
                panel.variables, {name: each[number] for name, each in arrays.items()}
            )
            rows = len(arrays["mean"][number])
            dates = continued(series.index, rows, freq)
            head = {} if layout.id_column is None else {layout.id_column: [series.name] * rows}
            parts.append(pd.DataFrame({**head, layout.time_column: dates, **columns}))
        return pd.concat(parts, ignore_index=True)
    columns = _columns(panel.variables, {name: lists[0] for name, lists in arrays.items()})
    index = continued(panel.series[0].index, len(arrays["mean"][0]), freq)
    frame = pandas().DataFrame(columns, index=index)
    return frame[panel.variables[0]] if layout.form == "series" and len(arrays) == 1 else frame


def _check(panel, arrays, horizon):
    for name, parts in arrays.items():
        rows = horizon if horizon is not None else len(arrays["mean"][0])
        shape = (rows, len(panel.variables))
        shapes = [array.shape for array in parts]
        if len(parts) != len(panel.series) or any(other != shape for other in shapes):
            raise ValueError(
                f"`forecasts` must have an array of shape {shape} for each of "
                f"{len(panel.series)} series. Received: {name!r} of shapes {shapes[:5]}"
            )


def _columns(variables, arrays):
    """Columns by name: the forecast of all variables, then what else there is of each."""
    columns = {variable: arrays["mean"][:, index] for index, variable in enumerate(variables)}
    for index, variable in enumerate(variables):
        for name, array in arrays.items():
            if name != "mean":
                columns[name if len(variables) == 1 else f"{variable}-{name}"] = array[:, index]
    return columns


def _arrays(form, arrays):
    if form == "vector":
        stacked = {name: parts[0][:, 0] for name, parts in arrays.items()}
    elif form == "matrix":
        stacked = {name: parts[0] for name, parts in arrays.items()}
    elif form == "batch":
        stacked = {name: np.stack(parts) for name, parts in arrays.items()}
    else:
        single = form == "vectors"
        parts_of = {
            name: [p[:, 0] if single else p for p in parts] for name, parts in arrays.items()
        }
        rows = zip(*parts_of.values(), strict=True)
        return (
            parts_of["mean"]
            if len(parts_of) == 1
            else [dict(zip(parts_of, r, strict=True)) for r in rows]
        )
    return stacked["mean"] if len(stacked) == 1 else stacked
