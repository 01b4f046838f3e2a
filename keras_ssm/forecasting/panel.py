from typing import Any

import numpy as np

from keras_ssm.forecasting.columns import category_ids, category_names, numbers
from keras_ssm.forecasting.future import read_future
from keras_ssm.forecasting.output import forecast_like
from keras_ssm.forecasting.roles import Roles, read_static
from keras_ssm.forecasting.series import Series
from keras_ssm.forecasting.tables import Layout, read_tables, regular_tables
from keras_ssm.forecasting.time_index import season


class Panel:
    """Series of one or several variables with their covariates, read from any kind of data.

    | data | what it is |
    |---|---|
    | array `(time,)`, `(time, variables)` | one series; columns are called 0, 1, ... |
    | list of such arrays, array `(series, time, variables)` | several, of any length if a list |
    | pandas `Series`, frame with dates or numbers as its index | one series, a variable a column |
    | pandas frame with `unique_id`, `ds` and `y` | several series, one under the other |

    NaN stays NaN: a missing value. Dates are sorted, each may come once, and where one is missing
    its row is NaN. All series have one frequency: that of the longest, or `freq`.

    Covariates are columns of the data. `historic` ones are known up to the last row, `known` ones
    also beyond it, where `future` has them; `static` ones are the same in all rows of a series.
    Of an array or a wide frame, the columns without a role are the variables. Of a long frame, they
    are historic covariates, and the variable is `y`.

    Attributes:
        series: list of `Series`.
        variables: list of str or int. Names of what is to be forecast.
        kind: `"numpy"`, `"wide"` or `"long"`.
        freq: str, number or `None`. The step of the index.
        roles: dict that JSON can hold. What each column is: for `read(..., like=)`.

    Example:
        ```python
        panel = Panel.read(np.array([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0]]), historic=[1])
        assert panel.series[0].values.shape == panel.series[0].historic.shape == (3, 1)
        ```
    """

    def __init__(self, series: list[Series], roles: Roles, layout: Layout, freq: Any = None):
        self.series = series
        self._roles = roles
        self._layout = layout
        self._freq = freq

    @classmethod
    def read(
        cls,
        data: Any,
        target: str | int | list | None = None,
        historic: list | tuple = (),
        known: list | tuple = (),
        static: Any = None,
        categorical: list | tuple = (),
        future: Any = None,
        freq: Any = None,
        id_column: str = "unique_id",
        time_column: str = "ds",
        like: dict | None = None,
    ) -> "Panel":
        """Reads data, and refuses what would train a wrong model.

        Args:
            data: array, list of arrays, pandas frame, or a `Panel`, which is returned as it is.
            target: name or names of the variables. Defaults to `None`: see the class.
            historic: names of covariates that are known up to the last row. Defaults to `()`.
            known: names of covariates that are known in advance. Defaults to `()`.
            static: names of columns, a frame with one row for each series (`unique_id` as a
                column or the index), or an array `(series, covariates)`. Defaults to `None`.
            categorical: names of covariates that are categories: text or whole numbers, which
                become ids from 1; 0 is a missing one. Defaults to `()`.
            future: the known covariates of the rows after the last one, of the same kind as the
                data. An array has them in the order of `known`. Defaults to `None`.
            freq: str, offset of pandas or, for an index of numbers, a number. Defaults to `None`:
                the coarsest frequency on which all dates lie.
            id_column: str. Column of long data that names the series. Defaults to `"unique_id"`.
            time_column: str. Column of long data with the dates. Defaults to `"ds"`.
            like: dict or `None`. `roles` of another panel, which this one must match; takes the
                place of all other arguments but `data`, `future` and `static`.
                Defaults to `None`.

        Returns:
            `Panel`.

        Raises:
            ValueError: for data without rows, a variable that is all NaN, infinite or complex
                values, text, dates that are duplicates, irregular or of several time zones,
                columns that are not there or have two roles, categories that are new, or future
                rows that do not follow the last one.
            ImportError: if pandas is needed and not installed.
        """
        if isinstance(data, Panel):
            return data
        if like is not None:
            id_column, time_column = like["id_column"], like["time_column"]
        tables, layout = read_tables(data, "data", id_column, time_column)
        if not tables or not all(table.rows for table in tables):
            raise ValueError(
                "`data` must have rows. Received: "
                + ("no series" if not tables else _empty(tables))
            )
        given_roles = Roles(target, historic, known, static, categorical, id_column, time_column)
        if like is not None:
            freq = like["freq"] if layout.kind != "numpy" else None
            roles, tables = given_roles.matched(like, tables, layout)
        else:
            roles = given_roles.resolved(tables, layout)
        fixed = read_static(roles, tables, static)
        tables, freq = regular_tables(tables, "data", freq)
        ahead = read_future(future, tables, roles, layout, freq)
        if like is None:
            for name in roles.categorical:
                category_columns = [
                    source[name]
                    for source in [t.columns for t in tables] + ahead + fixed
                    if name in source
                ]
                roles.categories[name] = category_names(category_columns, f"The column {name!r}")
        series = [
            _series(*parts, roles, may_lack=like is not None)
            for parts in zip(tables, ahead, fixed, strict=True)
        ]
        return cls(series, roles, layout, freq)

    @property
    def variables(self):
        return list(self._roles.target)

    @property
    def kind(self):
        return self._layout.kind

    @property
    def freq(self):
        return getattr(self._freq, "freqstr", self._freq)

    @property
    def frequency(self):
        """The step of the index as an offset of pandas or a number; `None` of arrays."""
        return self._freq

    @property
    def roles(self):
        return {**self._roles.config(), "freq": self.freq}

    @property
    def categorical(self):
        """Dict of `"historic"`, `"known"` and `"static"` to a dict of positions and counts of ids.

        A covariate at position `i` of its role with `n` ids has the values 0, ..., n - 1.
        """
        categories = self._roles.categories
        return {
            role: {
                position: len(categories[name]) + 1
                for position, name in enumerate(getattr(self._roles, role))
                if name in categories
            }
            for role in ("historic", "known", "static")
        }

    def until(self, rows: int) -> "Panel":
        """The panel without some rows at the end of each series; a series without rows is left out.

        Known covariates of these rows stay, as those of the rows to come.

        Args:
            rows: int. Rows to leave out.

        Returns:
            `Panel`.
        """
        shortened = []
        for series in self.series:
            count = len(series.values) - rows
            if count > 0:
                index = None if series.index is None else series.index[:count]
                values, historic = series.values[:count], series.historic[:count]
                shortened.append(series._replace(values=values, historic=historic, index=index))
        return Panel(shortened, self._roles, self._layout, self._freq)

    def season(self) -> int | None:
        """The rows of one season, from the frequency of the index.

        Returns:
            int: 24 of hours, 96 of quarters of an hour, 7 of days, 5 of working days, 52 of
            weeks, 12 of months, 4 of quarters. `None` where a frequency has none, such as years,
            and for arrays.
        """
        return season(self._freq)

    def check_future(self, horizon: int) -> None:
        """Raises a `ValueError` unless the known covariates reach over the horizon."""
        for series in self.series if self._roles.known else ():
            rows = len(series.known) - len(series.values)
            if rows < horizon:
                whose = "" if series.name is None else f" of the series {series.name!r}"
                raise ValueError(
                    f"`future` must have the known covariates{whose} for all {horizon} rows of the "
                    f"horizon: {', '.join(map(str, self._roles.known))}. Received: {rows} rows"
                )

    def frame(self, forecasts: dict[str, list[np.ndarray]], horizon: int | None = None) -> Any:
        """Forecasts as the kind of data that came in, the index continued.

        Of pandas data the forecast has the names of the variables as its columns; beside them
        stand `lo-90`, `hi-90` and whatever else is given, as `OT-lo-90` where there are several
        variables. A long frame has `unique_id` and `ds` too. Of arrays it is an array, and a dict
        of arrays where there is more than the forecast itself.

        Args:
            forecasts: dict of `"mean"`, the forecast itself, and other names, such as `"lo-90"`,
                to a list of arrays `(horizon, V)`, one for each series.
            horizon: int or `None`. Rows, to check the arrays. Defaults to `None`.

        Returns:
            Array, dict of arrays, list of them, or pandas frame or `Series`.

        Example:
            ```python
            panel = Panel.read(np.arange(5.0))
            assert panel.frame({"mean": [np.array([[5.0], [6.0]])]}).tolist() == [5.0, 6.0]
            ```
        """
        return forecast_like(self, self._layout, self._freq, forecasts, horizon)


def _empty(tables):
    number = next(i for i, table in enumerate(tables) if not table.rows)
    name = tables[number].name
    return f"an empty series, number {number}" if name is None else f"an empty series, {name!r}"


def _series(table, ahead, fixed, roles, may_lack=False):
    """One series of numbers, from the columns that were read.

    With `may_lack` a column may be missing in all rows: `fit` has seen values of it.
    """
    whose = "" if table.name is None else f" of the series {table.name!r}"

    def column(source, name):
        owner = f"The column {name!r}{whose}"
        if name in roles.categories:
            return category_ids(source[name], roles.categories[name], owner)
        return numbers(source[name], owner)

    def stack(names, source, rows):
        columns = [column(source, name) for name in names]
        return np.stack(columns, axis=-1) if columns else np.zeros((rows, 0))

    values = stack(roles.target, table.columns, table.rows)
    historic = stack(roles.historic, table.columns, table.rows)
    known = stack(roles.known, table.columns, table.rows)
    if ahead:
        later = stack(roles.known, ahead, 0)
        if np.isnan(later).any():
            raise ValueError(
                f"`future` must have every value{whose}. Received: {int(np.isnan(later).sum())} NaN"
            )
        known = np.concatenate([known, later])
    every = ((roles.target, values), (roles.historic, historic), (roles.known, known))
    for names, array in () if may_lack else every:
        for name, nothing in zip(names, np.isnan(array).all(axis=0), strict=True):
            if nothing:
                raise ValueError(
                    f"The column {name!r}{whose} must have a value in some row. "
                    f"Received: {len(array)} rows of NaN"
                )
    static = stack(roles.static, fixed, 1)[0] if roles.static else np.zeros(0)
    return Series(table.name, values, historic, known, static, table.index)
