"""Forecasts beside the values that came, row by row."""

import numpy as np

from keras_ssm.forecasting.columns import numbers
from keras_ssm.forecasting.tables import is_pandas

ID, TIME = "unique_id", "ds"


def aligned(y, *forecasts):
    """Pairs of arrays `(..., horizon, V)`, one for each series.

    Frames are matched by their dates, and by `unique_id`: `y` may have more rows than the
    forecasts, and they more columns than `y`.

    Args:
        y: array, list of arrays, or frame.
        *forecasts: of the same kind.

    Returns:
        List with one tuple for each series: an array of what came and one of each forecast.

    Raises:
        ValueError: if kinds, shapes, dates or columns do not fit.
    """
    if any(is_pandas(part) for part in (y, *forecasts)):
        return _of_frames(y, forecasts)
    lists = [part if isinstance(part, (list, tuple)) else [part] for part in (y, *forecasts)]
    if len({len(part) for part in lists}) > 1 or not lists[0]:
        raise ValueError(
            "`forecast` must have as many series as `y`. "
            f"Received: {', '.join(str(len(part)) for part in lists)}"
        )
    return [_pair(parts) for parts in zip(*lists, strict=True)]


def history_like(history, forecast):
    """The arrays `(time, V)` of a history, one for each series of a forecast and in its order."""
    if not is_pandas(history):
        parts = history if isinstance(history, (list, tuple)) else [history]
        return [_pair([part])[0] for part in parts]
    keys, names = _keys(history), [*getattr(forecast, "columns", ())]
    if keys is None:
        frame = history.to_frame() if history.ndim == 1 else history
        names = [name for name in names if name in frame.columns] or list(frame.columns)
        return [_array(frame.sort_index(), names)]
    names = [name for name in names if name in history.columns and name not in keys]
    frame = history.set_index(keys).sort_index()
    if len(keys) == 1:
        return [_array(frame, names)]
    series = frame.index.get_level_values(0)
    return [_array(frame[series == name], names) for name in forecast[ID].unique()]


def _array(frame, names):
    columns = [numbers(frame[name], f"The column {name!r}") for name in names]
    return np.stack(columns, axis=-1)


def _pair(parts):
    arrays = [numbers(part, "`y`" if i == 0 else "`forecast`") for i, part in enumerate(parts)]
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    if any(array.shape != arrays[0].shape for array in arrays) or arrays[0].ndim < 2:
        raise ValueError(
            "`forecast` must have the shape of `y`, `(..., horizon, variables)` or `(horizon,)`. "
            f"Received: {', '.join(str(array.shape) for array in arrays)}"
        )
    return tuple(arrays)


def _of_frames(y, forecasts):
    if not all(is_pandas(part) for part in (y, *forecasts)):
        raise ValueError(
            "`y` and `forecast` must be frames alike, or arrays. "
            f"Received: {', '.join(type(part).__name__ for part in (y, *forecasts))}"
        )
    keys = _keys(y)
    if keys is None:
        return [_wide(y, forecasts)]
    frame = y.set_index(keys)
    indexed = [part.set_index(keys) if _keys(part) == keys else part for part in forecasts]
    parts = _wide(frame, indexed)
    if len(keys) == 1:
        return [parts]
    names = indexed[0].index.get_level_values(0)
    return [tuple(p[names == name] for p in parts) for name in names.unique()]


def _keys(frame):
    columns = getattr(frame, "columns", ())
    return [key for key in (ID, TIME) if key in columns] if TIME in columns else None


def _wide(y, forecasts):
    y = y.to_frame() if y.ndim == 1 else y
    forecasts = [part.to_frame() if part.ndim == 1 else part for part in forecasts]
    first = forecasts[0]
    names = [name for name in first.columns if name in y.columns]
    if not names and len(first.columns) == 1:  # the column of a bound has another name
        names = ["y"] if "y" in y.columns else list(y.columns)[: 2 - len(y.columns)]
    for part in forecasts:
        if not names or (len(part.columns) < len(names)) or len(part) == 0:
            raise ValueError(
                "`forecast` must have the columns of `y`. "
                f"Received: {list(part.columns)} for {list(y.columns)}"
            )
        if not part.index.isin(y.index).all():
            missing = part.index[~part.index.isin(y.index)]
            raise ValueError(
                "`y` must have every row of `forecast`. "
                f"Received: no row of {missing[0]}, and {len(missing)} such"
            )
        if not part.index.equals(first.index):
            raise ValueError(
                "`forecast` must have the same rows in all its parts. Received: others"
            )
    rows = [y.loc[first.index, names]]
    rows += [part[names] if set(names) <= {*part.columns} else part for part in forecasts]
    return tuple(_array(part, list(part.columns)) for part in rows)
