"""Covariates that are known beyond the last row."""

import numpy as np

from keras_ssm.forecasting.tables import is_pandas, read_tables
from keras_ssm.forecasting.time_index import check_index, continued, same_kind


def read_future(future, tables, roles, layout, freq):
    """A dict of the known covariates' later values for each table; empty without a future.

    Rows of dates that the history has are passed over, so that one frame may hold all rows of a
    covariate.

    Raises:
        ValueError: if columns, series or dates are missing, or do not follow the history.
    """
    if future is None:
        return [{} for _ in tables]
    if not roles.known:
        raise ValueError(
            "`future` must come with covariates that `known` names. Received: known=()"
        )
    if is_pandas(future) != (layout.kind != "numpy"):
        raise ValueError(
            f"`future` must be of the kind of `data`, {layout.kind}. Received: {type(future)}"
        )
    if layout.form in ("vector", "matrix"):
        future = np.asarray(future)
    future_tables, form = read_tables(future, "future", roles.id_column, roles.time_column)
    if layout.kind == "numpy":
        return _of_arrays(future_tables, tables, roles)
    if form.kind != layout.kind:
        raise ValueError(f"`future` must be {layout.kind}, as `data` is. Received: {form.kind}")
    by_name = {table.name: table for table in future_tables}
    missing = [table.name for table in tables if table.name not in by_name]
    if missing:
        raise ValueError(
            f"`future` must have rows of every series of `data`. Received: none of {missing[:5]}"
        )
    with_role = {*roles.known, *roles.target, *roles.historic, *roles.static, *roles.ignored}
    unknown = [name for name in future_tables[0].columns if name not in with_role]
    if unknown:
        raise ValueError(f"`future` must have the columns {roles.known}. Received: also {unknown}")
    return [_later(by_name[table.name], table, roles, freq) for table in tables]


def _of_arrays(arrays, tables, roles):
    if len(arrays) != len(tables) or any(len(t.columns) != len(roles.known) for t in arrays):
        raise ValueError(
            f"`future` must be an array `(rows, {len(roles.known)})` for each of {len(tables)} "
            f"series. Received: {len(arrays)} of {len(arrays[0].columns) if arrays else 0} columns"
        )
    return [dict(zip(roles.known, table.columns.values(), strict=True)) for table in arrays]


def _later(table, history, roles, freq):
    whose = "" if table.name is None else f" of the series {table.name!r}"
    missing = [name for name in roles.known if name not in table.columns]
    if missing:
        raise ValueError(
            f"`future` must have the columns {roles.known}{whose}. Received: columns="
            f"{list(table.columns)}, without {missing}"
        )
    index, last = table.index, history.index[-1]
    check_index(index, "future", f"The index{whose}")
    if not same_kind(index, history.index):
        raise ValueError(
            f"`future` must have dates of the time zone and kind of `data`{whose}. Received: "
            f"{index.dtype} after {history.index.dtype}"
        )
    order = index.argsort()
    order = order[index[order] > last]
    index = index[order]
    if hasattr(index, "tz") and index.tz is not None:
        index = index.tz_convert(history.index.tz)
    expected = continued(history.index, len(index), freq)
    if len(index) and not (index == expected).all():
        wrong = next(i for i in range(len(index)) if index[i] != expected[i])
        raise ValueError(
            f"`future` must have every row after the last one of `data`{whose}, {last}. "
            f"Received: {index[wrong]} where {expected[wrong]} follows"
        )
    return {name: table.columns[name].iloc[order] for name in roles.known}
