"""The inputs of the estimators: tables, arrays of sequences and lists of them."""

import numbers

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from keras_ssm.checks import check_choice

LAYOUTS = ("keras", "aeon")


def read_sequences(estimator, X, fitting):
    """Returns a list or array of sequences as arrays `(length, channels)` of real numbers.

    A table, of two axes, holds a sequence of one channel in each row. Its columns are counted, and
    by name where they have names, as scikit-learn does.

    Args:
        estimator: the estimator, with its `layout`. Gets `n_features_in_` and `n_channels_`.
        X: array `(cases, length)` or `(cases, length, channels)`, a list of arrays `(length,)` or
            `(length, channels)`, a data frame; with the layout of aeon channels come before
            length.
        fitting: bool. Whether `fit` calls. Later calls have to match its columns or channels.

    Raises:
        ValueError: for NaN, empty or unlike sequences, or other numbers of columns or channels.
    """
    check_choice("layout", estimator.layout, LAYOUTS)
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)  # an array of arrays
    rows = X if _are_sequences(X) else None
    if rows is None:
        # scikit-learn's own errors for sparse matrices, text, NaN and shapes.
        array = check_array(X, allow_nd=True, ensure_2d=False, dtype=None, input_name="X")
        if array.ndim != 3:
            return _table(estimator, X, fitting)
        array = check_array(array, allow_nd=True, dtype="float64", input_name="X")
        rows = list(array)
        if 0 in array.shape:
            raise ValueError(
                f"`X` must hold at least one step and one channel. Received: X.shape={array.shape}"
            )
    rows = [_sequence(i, row, estimator.layout) for i, row in enumerate(rows)]
    channels = sorted({row.shape[1] for row in rows})
    if len(channels) != 1:
        raise ValueError(
            f"All sequences of `X` must have the same channels. Received: {channels} of them"
        )
    if fitting:
        estimator.n_features_in_ = estimator.n_channels_ = channels[0]
        estimator.reads_tables_ = False
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    _check_channels(estimator, channels[0])
    return rows


def _are_sequences(X):
    """Whether this is a list of arrays, rather than the rows of one array."""
    if not isinstance(X, (list, tuple)) or not len(X):
        return False
    if not all(hasattr(row, "__len__") and not isinstance(row, (str, bytes)) for row in X):
        return False
    shapes = {_shape(row) for row in X}
    return len(shapes) > 1 or any(isinstance(row, np.ndarray) and row.ndim == 2 for row in X)


def _shape(row):
    shape = getattr(row, "shape", None)
    if shape is not None:
        return tuple(shape)
    first = row[0] if len(row) else 0
    return (len(row),) if isinstance(first, numbers.Number) else (len(row), len(first))


def _table(estimator, X, fitting):
    """A table as sequences of one channel."""
    checks_columns = fitting or getattr(estimator, "reads_tables_", True)
    if checks_columns:
        array = validate_data(estimator, X, reset=fitting, dtype="numeric")
    else:
        array = check_array(X, dtype="numeric", input_name="X")
    if fitting:
        estimator.n_channels_, estimator.reads_tables_ = 1, True
    _check_channels(estimator, 1)
    return list(array[..., None])


def _sequence(i, row, layout):
    row = np.asarray(row.to_numpy() if hasattr(row, "to_numpy") else row)
    if row.dtype.kind not in "fiub" or row.ndim not in (1, 2) or 0 in row.shape:
        raise ValueError(
            "A sequence of `X` must be numbers of one or two axes, with at least one step. "
            f"Received: shape {row.shape}, dtype {row.dtype} in case {i}"
        )
    if not np.isfinite(row.astype("float64")).all():
        raise ValueError(f"`X` must be finite. Received: NaN or infinity in case {i}")
    row = row[:, None] if row.ndim == 1 else row.T if layout == "aeon" else row
    return row  # in its own precision: only differences from a large mean fit into float32


def _check_channels(estimator, channels):
    if channels != estimator.n_channels_:
        raise ValueError(
            f"`X` must have {estimator.n_channels_} channels, as those of `fit` had. "
            f"Received: {channels}; an array is (cases, length, channels), or (cases, channels, "
            "length) with layout='aeon'"
        )
