"""What the graph of a forecaster takes: packed rows, and the windows of the shortcut."""

import keras
import numpy as np

from keras_ssm.checks import compatible
from keras_ssm.models.trainer.targets import to_numpy


def standard_inputs(model, inputs):
    """Brings an array, or a dict of what the graph takes, to the latter; see `SSMForecaster`.

    Args:
        model: `SSMForecaster`.
        inputs: array `(batch, length, width)`, or dict.

    Returns:
        Dict of the inputs of the graph.

    Raises:
        ValueError: for other keys, shapes or dtypes.
    """
    tensors = dict(inputs) if isinstance(inputs, dict) else {"inputs": inputs}
    model_inputs = model.input
    if set(tensors) == set(model_inputs):
        for name, symbol in model_inputs.items():
            if not hasattr(tensors[name], "shape"):
                tensors[name] = to_numpy(tensors[name])
            shape = tuple(tensors[name].shape)
            if not compatible(shape, tuple(symbol.shape)):
                raise ValueError(
                    f"`{name}` must have shape {tuple(symbol.shape)}. "
                    f"Received: {name}.shape={shape}"
                )
        return tensors
    if set(tensors) != {"inputs"} or isinstance(tensors["inputs"], keras.KerasTensor):
        raise ValueError(
            f"`inputs` must be an array (batch, length, {model.columns.width}) or a dict of "
            f"{', '.join(map(repr, model_inputs))}. Received: keys {sorted(tensors)}"
        )
    return from_rows(model, to_numpy(tensors["inputs"]))


def from_rows(model, x):
    """The inputs of the graph for one forecast after each row; covariates ahead are zero."""
    width = model.columns.width
    if x.ndim != 3 or x.shape[-1] != width or 0 in x.shape[1:] or x.dtype.kind != "f":
        raise ValueError(
            f"`inputs` must be floats of shape (batch, length, {width}), with at least one step. "
            f"Received: inputs.shape={x.shape}, dtype {x.dtype}"
        )
    observed = ~np.isnan(x[..., 0])
    count = observed.sum(axis=1)
    if not count.all():
        raise ValueError(
            "`inputs` must have a value in every row. "
            f"Received: no value but NaN in row {int(np.argmin(count))}"
        )
    filled = last_seen(x[..., 0])
    window = windows_at(filled, np.full((len(x), 1), x.shape[1] - 1), model.lookback)
    packed, mask = packed_rows(x, observed, x.shape[1])
    floats = keras.backend.standardize_dtype(model.input["inputs"].dtype)
    standard = {
        "inputs": packed.astype(floats),
        "padding_mask": mask,
        "origins": count[:, None].astype("int32"),
        "window": window.astype(floats),
    }
    if model.columns.future:
        shape = (len(x), 1, *model.input["future"].shape[2:])
        standard["future"] = np.zeros(shape, floats)
    return standard


def packed_rows(x, observed, length):
    """The observed steps of each row, side by side from the first place on.

    Args:
        x: array `(batch, steps, features)`.
        observed: boolean array `(batch, steps)`.
        length: int. Steps of the result, at least as many as any row has.

    Returns:
        Tuple of an array `(batch, length, features)`, zero behind the last, and the mask of it.
    """
    order = np.argsort(~observed, axis=1, kind="stable")
    mask = np.take_along_axis(observed, order, axis=1)
    packed = np.where(mask[..., None], np.take_along_axis(x, order[..., None], axis=1), 0.0)
    steps = min(length, x.shape[1])
    result = np.zeros((len(x), length, x.shape[2]), x.dtype)
    result[:, :steps] = packed[:, :steps]
    valid = np.zeros((len(x), length), bool)
    valid[:, :steps] = mask[:, :steps]
    return result, valid


def last_seen(x, before=None):
    """Each value, or where it is NaN the last one before it that is none.

    Args:
        x: array `(rows, steps)`.
        before: array `(rows,)` or `None`. What was seen before the first step.

    Returns:
        Array `(rows, steps)`, NaN before the first value.
    """
    if before is not None:
        x = np.concatenate([before[:, None], x], axis=1)
    place = np.where(np.isnan(x), 0, np.arange(x.shape[1]))
    place = np.maximum.accumulate(place, axis=1)
    filled = np.take_along_axis(x, place, axis=1)
    return filled if before is None else filled[:, 1:]


def windows_at(filled, places, lookback, before=None):
    """The `lookback` values up to each place; before the first value stands that value.

    Args:
        filled: array `(rows, steps)`, as `last_seen` returns it.
        places: integers `(rows, places)`. Where the windows end.
        lookback: int.
        before: array `(rows, lookback)` or `None`. The values before the first step.

    Returns:
        Array `(rows, places, lookback)`; NaN where no value was seen.
    """
    if before is None:
        before = np.full((len(filled), lookback), np.nan)
    joined = np.concatenate([before, filled], axis=1)
    views = np.lib.stride_tricks.sliding_window_view(joined, lookback, axis=1)
    windows = views[np.arange(len(filled))[:, None], places + 1]
    if np.isnan(windows[..., 0]).any():
        first = np.argmax(~np.isnan(windows), axis=-1)[..., None]
        value = np.take_along_axis(windows, first, axis=-1)
        windows = np.where(np.isnan(windows), value, windows)
    return windows
