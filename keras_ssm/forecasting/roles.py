"""The role of each column of the data."""

import dataclasses

import numpy as np

from keras_ssm.forecasting.tables import is_pandas


@dataclasses.dataclass
class Roles:
    """Names of the columns by their roles; static covariates may have a table of their own."""

    target: object
    historic: object
    known: object
    static: object
    categorical: object
    id_column: str
    time_column: str
    ignored: list = dataclasses.field(default_factory=list)
    categories: dict = dataclasses.field(default_factory=dict)
    kind: str = "numpy"

    def config(self):
        """A dict that JSON can hold, with which `matched` finds the same roles again."""
        fields = dataclasses.asdict(self)
        # JSON has no numbers as keys.
        fields["categories"] = [list(pair) for pair in self.categories.items()]
        return fields

    def resolved(self, tables, layout):
        """The roles of the columns that are there."""
        columns = _all_columns(tables)
        static, _ = _static_names(self.static)
        from_data = [] if static is None else static
        if is_table(self.static):
            from_data = []
        roles = dataclasses.replace(
            self,
            historic=_names("historic", self.historic),
            known=_names("known", self.known),
            static=static or [],
            categorical=_names("categorical", self.categorical),
            kind=layout.kind,
        )
        with_role = [*roles.historic, *roles.known, *from_data]
        remaining = [name for name in columns if name not in with_role]
        if self.target is not None:
            roles.target = _names("target", self.target)
        elif layout.kind == "long":
            roles.target = ["y"]
        else:
            roles.target, remaining = remaining, []
        if not roles.target:
            raise ValueError(
                "`target` must leave a variable to forecast. "
                f"Received: target={self.target!r}, columns={columns}"
            )
        remaining = [name for name in remaining if name not in roles.target]
        if layout.kind == "long":
            roles.historic += remaining
        else:
            roles.ignored = remaining
        named = [*roles.target, *roles.historic, *roles.known, *from_data]
        _check_there(named, tables)
        duplicates = [name for name in named if named.count(name) > 1]
        if duplicates:
            raise ValueError(
                "`target`, `historic`, `known` and `static` must name each column once. "
                f"Received: {duplicates[0]!r} twice"
            )
        roles._check_categorical()
        return roles

    def _check_categorical(self):
        covariates = [*self.historic, *self.known, *self.static]
        wrong = [name for name in self.categorical if name not in covariates]
        if wrong:
            raise ValueError(
                "`categorical` must name covariates, which `historic`, `known` and `static` are. "
                f"Received: {wrong[0]!r}, covariates={covariates}"
            )

    def matched(self, like, tables, layout):
        """The roles of another panel, and the tables with its names of columns.

        Data of another kind than that panel's are matched by the order of the variables.
        """
        facts = {field.name: like[field.name] for field in dataclasses.fields(self)}
        facts["categories"] = {name: list(names) for name, names in like["categories"]}
        roles = Roles(**facts)
        if {roles.kind, layout.kind} & {"numpy"} and roles.kind != layout.kind:
            tables = [_renamed(table, roles) for table in tables]
        from_data = [] if is_table(self.static) else roles.static
        named = [*roles.target, *roles.historic, *roles.known, *from_data]
        _check_there(named, tables, " that `fit` has seen:")
        unknown = [name for name in _all_columns(tables) if name not in [*named, *roles.ignored]]
        if unknown:
            raise ValueError(
                f"`data` must have the columns that `fit` has seen: {named}. "
                f"Received: also {unknown}"
            )
        return roles, tables


def is_table(static):
    """Whether static covariates are a table of their own, and no names of columns."""
    return is_pandas(static) or isinstance(static, np.ndarray)


def _all_columns(tables):
    return list(dict.fromkeys(name for table in tables for name in table.columns))


def _names(argument, names):
    if names is None:
        return []
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        names = [names]
    names = [name.item() if isinstance(name, np.generic) else name for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"`{argument}` must name each column once. Received: {argument}={names}")
    return names


def _check_there(required, tables, seen=""):
    for table in tables:
        missing = [name for name in required if name not in table.columns]
        if missing:
            raise ValueError(
                f"`data` must have the columns{seen} {required}. Received: columns="
                f"{list(table.columns)}, without {missing}"
            )


def _renamed(table, roles):
    if roles.historic or roles.known or len(table.columns) != len(roles.target):
        raise ValueError(
            "`data` must have the columns that `fit` has seen: "
            f"{[*roles.target, *roles.historic, *roles.known]}; arrays and frames stand for each "
            f"other where there are no covariates. Received: columns={list(table.columns)}"
        )
    columns = dict(zip(roles.target, table.columns.values(), strict=True))
    return table._replace(columns=columns)


def _static_names(static):
    """Names of static covariates, and the table that has them, or `None` if the data does."""
    if static is None:
        return None, None
    if isinstance(static, np.ndarray):
        array = static[:, None] if static.ndim == 1 else static
        return [f"static-{column}" for column in range(array.shape[-1])], array
    if is_pandas(static):
        return None, static
    return _names("static", static), None


def read_static(roles, tables, static):
    """A dict of static covariates to arrays `(1,)` for each table; fills in their names.

    Raises:
        ValueError: if a series has none, or one that changes.
    """
    if is_pandas(static):
        return _static_frame(roles, tables, static)
    names, array = _static_names(static)
    if array is not None:
        if array.ndim != 2 or len(array) != len(tables):
            raise ValueError(
                f"`static` must have one row for each of {len(tables)} series. "
                f"Received: static.shape={static.shape}"
            )
        _check_static(roles, names)
        return [
            {name: row[column : column + 1] for column, name in enumerate(names)} for row in array
        ]
    return [{name: _constant(table, name) for name in roles.static} for table in tables]


def _static_frame(roles, tables, static):
    if roles.id_column in static.columns:
        static = static.set_index(roles.id_column)
    _check_static(roles, list(static.columns))
    if not static.index.is_unique:
        raise ValueError("`static` must have one row for each series. Received: duplicates")
    missing = [table.name for table in tables if table.name not in static.index]
    if missing:
        raise ValueError(
            f"`static` must have a row for each series. Received: none of {missing[:5]}"
        )
    return [{name: static[name].loc[[table.name]] for name in static.columns} for table in tables]


def _check_static(roles, names):
    if not roles.static:
        roles.static = names
        roles._check_categorical()
    if list(roles.static) != list(names):
        raise ValueError(f"`static` must have the columns {roles.static}. Received: {names}")


def _constant(table, name):
    column = table.columns[name]
    first = column.iloc[:1] if hasattr(column, "iloc") else column[:1]
    values = np.asarray(column, dtype=object)
    if any(value != values[0] and value == value for value in values):
        whose = "" if table.name is None else f" of the series {table.name!r}"
        raise ValueError(
            f"`static` must name columns with one value in all rows{whose}. "
            f"Received: {name!r}, which changes"
        )
    return first
