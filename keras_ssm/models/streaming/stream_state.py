"""The state of a stream: its rows, its arrays, its files."""

import json
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.models.saving import state_files
from keras_ssm.models.saving.fingerprint import fingerprint

FORMAT = 1
FACTS, STEPS = "stream/facts", "stream/steps"  # beside the parts of the model's state


def chosen_rows(rows, batch):
    """Which rows are meant, as a boolean array `(batch,)`."""
    array = np.asarray(rows)
    if array.dtype == bool and array.shape == (batch,):
        return array
    whole = array.dtype.kind in "iu" and array.ndim < 2
    if not whole or (array.size and not (array.min() >= 0 and array.max() < batch)):
        raise ValueError(
            f"`rows` must be numbers from 0 to {batch - 1}, or {batch} flags. "
            f"Received: rows={rows!r}"
        )
    return np.isin(np.arange(batch), array)


def where_rows(rows, new, old):
    """A state with the chosen rows of one and the others of another."""

    def chosen(new, old):
        flags = ops.convert_to_tensor(rows.reshape(-1, *[1] * (len(old.shape) - 1)))
        return ops.where(flags, new, old)

    return tree.map_structure(chosen, new, old)


def named(state):
    """The parts of a state by their paths, a flat dict."""
    return {"/".join(map(str, path)): part for path, part in tree.flatten_with_path(state)}


def like(state, parts):
    """A state of the structure and dtypes of another, of copies of its parts by name."""
    named_state = named(state)
    values = [
        ops.copy(ops.convert_to_tensor(parts[name], part.dtype))
        for name, part in named_state.items()
    ]
    return tree.pack_sequence_as(state, values)


def to_arrays(task, parts):
    """The memory of a stream, a flat dict, as arrays of NumPy with facts on their model."""
    facts = {"format": FORMAT, "model": fingerprint(task)}
    arrays = {  # copies, since JAX reuses the buffers of a state
        name: state_files.storable(np.array(ops.convert_to_numpy(part)))
        for name, part in parts.items()
    }
    return {**arrays, FACTS: np.array(json.dumps(facts))}


def from_arrays(task, arrays, parts):
    """The arrays that `to_arrays` was given.

    Args:
        task: the model of the stream that they go to.
        arrays: mapping from names to arrays.
        parts: dict of what that stream remembers now.

    Returns:
        Dict of arrays, with the names of `parts`.

    Raises:
        ValueError: for arrays of another model, of another number of rows, or of no stream.
    """
    if not isinstance(arrays, Mapping):
        raise ValueError(
            "`state` must be the dict of arrays that a stream has as its `state`. "
            f"Received: {type(arrays).__name__}"
        )
    values = {name: np.asarray(value) for name, value in arrays.items()}
    facts = _facts(values.pop(FACTS, None))
    if facts is None or set(values) != set(parts):
        raise ValueError(
            f"`state` must have the arrays {sorted([*parts, FACTS])} of a stream of this "
            f"model. Received: {sorted(arrays)}"
        )
    for name, part in parts.items():
        _check(name, values[name], part)
    if facts != fingerprint(task):
        raise ValueError(
            "`state` must come from this model with the weights that it has now: after others it "
            "means nothing. Received: the state of a model with other weights"
        )
    return values


def _facts(text):
    """The model that arrays say they come from, or `None` for what is no stream's."""
    try:
        facts = json.loads(str(text))
        return str(facts["model"]) if facts["format"] == FORMAT else None
    except (KeyError, TypeError, ValueError):
        return None


def _check(name, value, part):
    dtype = keras.backend.standardize_dtype(part.dtype)
    dtype = np.dtype("float32" if dtype == "bfloat16" else dtype)
    kinds = {"i": "iu", "u": "iu"}.get(dtype.kind, dtype.kind)
    if value.shape != tuple(part.shape) or value.dtype.kind not in kinds:
        raise ValueError(
            f"`state[{name!r}]` must have shape {tuple(part.shape)} and a dtype such as {dtype}. "
            f"Received: shape {value.shape}, dtype {value.dtype}"
        )
