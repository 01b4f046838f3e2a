"""Columns of data as float64: numbers, and categories as ids."""

import numpy as np


def numbers(values, owner):
    """Numbers of a column or array as float64, NaN where missing.

    Args:
        values: pandas column, array, or other values that NumPy turns into one.
        owner: str. The column, for the error.

    Raises:
        ValueError: if they are no real numbers, or one is infinite.
    """
    missing = getattr(values, "isna", None)
    if missing is not None:
        missing = np.asarray(missing())
        kind = getattr(values.dtype, "kind", "O")
        if kind in "iufb":
            values = values.to_numpy(dtype="float64", na_value=np.nan)
        else:
            values = values.to_numpy()
    elif np.ma.isMaskedArray(values):
        missing = np.ma.getmaskarray(values)
        values = values.data
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner} must have real numbers. Received: {type(values)}") from error
    if array.dtype.kind not in "iufb":
        raise ValueError(
            f"{owner} must have real numbers; `categorical` names covariates that are categories. "
            f"Received: dtype={array.dtype}{_first(array)}"
        )
    array = array.astype("float64")  # a copy: the caller's array stays as it is
    if missing is not None:
        array[missing] = np.nan
    if np.isinf(array).any():
        raise ValueError(
            f"{owner} must be finite, or NaN where missing. "
            f"Received: {int(np.isinf(array).sum())} infinite values"
        )
    return array


def _first(array):
    return f", {array.ravel()[0]!r}" if array.size else ""


def category_names(columns, owner):
    """The categories of columns, sorted: text before numbers. Missing ones are none.

    Args:
        columns: list of one-dimensional columns.
        owner: str. The covariate, for the error.

    Returns:
        List of str and int.
    """
    categories = {value for column in columns for value in _plain(column, owner)} - {None}
    return sorted(categories, key=lambda value: (isinstance(value, int), value))


def category_ids(column, names, owner):
    """Ids of a column's categories, as float64: 1 is the first, 0 a missing value.

    Raises:
        ValueError: for a category that is not among the names.
    """
    ids = {None: 0} | {name: number for number, name in enumerate(names, start=1)}
    values = _plain(column, owner)
    unknown = sorted({str(value) for value in values if value not in ids})
    if unknown:
        raise ValueError(
            f"{owner} must have categories that `fit` has seen: {', '.join(map(str, names))}. "
            f"Received: {', '.join(unknown[:5])}"
        )
    return np.array([ids[value] for value in values], "float64")


def _plain(column, owner):
    """Values as str, int or, where missing, `None`."""
    plain_values = []
    for value in np.asarray(column, dtype=object).ravel().tolist():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):
            value = int(value)
        if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
            value = None
        elif isinstance(value, float) and value == int(value):
            value = int(value)
        elif not isinstance(value, (str, int)):
            raise ValueError(
                f"{owner} must have text or whole numbers as categories. Received: {value!r}"
            )
        plain_values.append(value)
    return plain_values
