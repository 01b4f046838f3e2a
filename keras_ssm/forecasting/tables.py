"""Data of each kind as the same tables: a name, an index, columns."""

import sys
from typing import Any, NamedTuple

import numpy as np

from keras_ssm.forecasting.time_index import (
    check_index,
    frequency,
    pandas,
    regular,
)


class Table(NamedTuple):
    """A series as it was read: its columns have one value for each row of the index."""

    name: Any
    columns: dict
    index: Any

    @property
    def rows(self):
        return len(next(iter(self.columns.values()))) if self.columns else 0


class Layout(NamedTuple):
    """The kind of the data, which a forecast shall have too.

    `form` is "vector", "matrix", "batch", "vectors" or "list" of NumPy, and "series", "frame" or
    "long" of pandas.
    """

    form: str
    id_column: str | None = None
    time_column: str | None = None

    @property
    def kind(self):
        return {"series": "wide", "frame": "wide", "long": "long"}.get(self.form, "numpy")


def is_pandas(data):
    pd = sys.modules.get("pandas")
    return pd is not None and isinstance(data, (pd.DataFrame, pd.Series))


def read_tables(data, argument, id_column, time_column):
    """Tables of any kind of data, in the order of the data, and their layout.

    Dates are not sorted, and gaps are not filled.
    """
    if not is_pandas(data):
        return _arrays(data, argument)
    pd = pandas()
    if isinstance(data, pd.Series):
        name = data.name if data.name is not None else "y"
        return [Table(None, {name: data}, data.index)], Layout("series")
    if isinstance(data.columns, pd.MultiIndex) or not data.columns.is_unique:
        raise ValueError(
            f"`{argument}` must have columns of one level, each name once. "
            f"Received: columns={list(data.columns)}"
        )
    if time_column not in data.columns:
        if id_column in data.columns:
            raise ValueError(
                f"`{argument}` must have dates in the column {time_column!r}, beside "
                f"{id_column!r}. Received: columns={list(data.columns)}"
            )
        return [Table(None, _columns(data), data.index)], Layout("frame")
    if id_column not in data.columns:
        table = data.set_index(time_column)
        return [Table(None, _columns(table), table.index)], Layout("long", None, time_column)
    if data[id_column].isna().any():
        raise ValueError(
            f"`{argument}` must have a {id_column!r} in every row. "
            f"Received: {int(data[id_column].isna().sum())} rows without one"
        )
    groups = data.groupby(id_column, sort=False, observed=True)
    tables = []
    for name, group in groups:
        group = group.drop(columns=id_column).set_index(time_column)
        tables.append(Table(name, _columns(group), group.index))
    return tables, Layout("long", id_column, time_column)


def _columns(frame):
    return {name: frame[name] for name in frame.columns}


def _arrays(data, argument):
    """Tables of NumPy data, whose columns are called 0, 1, ..."""
    if isinstance(data, (list, tuple)) and len(data) and not np.isscalar(data[0]):
        tables = [_array(item, f"{argument}[{i}]") for i, item in enumerate(data)]
        return tables, Layout("vectors" if all(np.ndim(item) == 1 for item in data) else "list")
    if data is None or isinstance(data, (str, bytes, dict, set)):
        raise ValueError(
            f"`{argument}` must be an array `(time, variables)`, a list of such, or a pandas "
            f"frame. Received: {type(data)}"
        )
    array = data if np.ma.isMaskedArray(data) else np.asarray(data)
    if array.ndim == 3:
        return [_array(item, f"{argument}[{i}]") for i, item in enumerate(array)], Layout("batch")
    return [_array(array, argument)], Layout("vector" if array.ndim == 1 else "matrix")


def _array(item, argument):
    array = item if np.ma.isMaskedArray(item) else None
    if array is None:
        try:
            array = np.asarray(item)
        except ValueError as error:  # rows of unequal length
            raise ValueError(
                f"`{argument}` must be an array `(time, variables)`. Received: {type(item)}"
            ) from error
    if is_pandas(item) or array.ndim not in (1, 2):
        raise ValueError(
            f"`{argument}` must be an array `(time, variables)` or `(time,)`; several data frames "
            f"become one with a column `unique_id`. Received: {type(item)}, shape={array.shape}"
        )
    array = array[:, None] if array.ndim == 1 else array
    return Table(None, {column: array[:, column] for column in range(array.shape[1])}, None)


def regular_tables(tables, argument, freq):
    """Tables whose dates are sorted and have no gaps, and their frequency.

    The frequency of the longest series is that of all.
    """
    if any(not len(table.index) for table in tables if table.index is not None):
        raise ValueError(f"`{argument}` must have rows. Received: an empty series")
    if any(table.index is None for table in tables):
        if freq is not None:
            raise ValueError(f"`freq` must be None for arrays. Received: freq={freq!r}")
        return tables, None
    tables = [_sorted(table, argument) for table in tables]
    longest = max(tables, key=lambda table: len(table.index))
    step = frequency(longest.index, freq, _owner(longest))
    return [_filled(table, regular(table.index, step, _owner(table))) for table in tables], step


def _owner(table):
    return "The index" if table.name is None else f"The series {table.name!r}"


def _sorted(table, argument):
    check_index(table.index, argument, _owner(table))
    index = table.index
    if index.is_monotonic_increasing:
        return table
    order = index.argsort()
    columns = {name: column.iloc[order] for name, column in table.columns.items()}
    return Table(table.name, columns, index[order])


def _filled(table, index):
    if len(index) == len(table.index):
        return Table(table.name, table.columns, index)
    columns = {name: column.reindex(index) for name, column in table.columns.items()}
    return Table(table.name, columns, index)
