"""Times between samples, as a model takes them."""

import numpy as np
from keras import ops

from keras_ssm.checks import compatible


def standard_argument(name, value, mask):
    """Checks an array that goes with every step of the inputs of a model.

    Args:
        name: str. Name of the argument of the mixer's call.
        value: array or tensor `(batch, length, ...)`.
        mask: array or tensor `(batch, length)`, True where the inputs count.

    Returns:
        The array; for `timesteps` as `model_timesteps` returns it.

    Raises:
        ValueError: for another shape.
    """
    if name == "timesteps":
        return model_timesteps(value, mask)
    value = value if hasattr(value, "shape") else np.asarray(value)
    if not compatible(tuple(value.shape[:2]), tuple(mask.shape)):
        raise ValueError(
            f"`{name}` must have shape (batch, length, ...), with (batch, length) = "
            f"{tuple(mask.shape)}. Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def model_timesteps(timesteps, mask):
    """Checks the `timesteps` of a model and brings arrays to floats.

    Args:
        timesteps: array or tensor `(batch, length)`.
        mask: array or tensor `(batch, length)`, True where they count.

    Returns:
        The same; arrays of NumPy as floats, padding at the ends harmless.

    Raises:
        ValueError: for another shape, or values that are not positive, but for those of
            padding at the ends.
    """
    if not hasattr(timesteps, "shape"):
        timesteps = np.asarray(timesteps)
    if not compatible(tuple(timesteps.shape), tuple(mask.shape)):
        raise ValueError(
            f"`timesteps` must have shape (batch, length) = {tuple(mask.shape)}. "
            f"Received: timesteps.shape={tuple(timesteps.shape)}"
        )
    if not isinstance(timesteps, np.ndarray):
        return timesteps
    if timesteps.dtype.kind not in "fiu":
        raise ValueError(f"`timesteps` must be numbers. Received: dtype {timesteps.dtype}")
    timesteps = timesteps.astype("float64" if timesteps.dtype == "float64" else "float32")
    if isinstance(mask, np.ndarray):
        valid = mask.astype(bool)
        count = np.cumsum(valid, axis=-1)
        read = (count > 0) & (count[..., -1:] - count + valid > 0)  # not padding at the ends
        good = np.isfinite(timesteps) & (timesteps > 0)
        timesteps = np.where(read | good, timesteps, np.ones((), timesteps.dtype))
        wrong = read & ~good
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                "`timesteps` must be positive and finite from the first valid step to the last. "
                f"Received: {timesteps[where]} at (row, step) = {where}"
            )
    return timesteps


def padded_timesteps(timesteps, mask, sequence_length, dtype):
    """Pads the `timesteps` of a batch with ones, and cuts them, to the shape of its mask.

    Args:
        timesteps: array or tensor `(batch, length)`, a list of arrays `(length,)` or a ragged
            tensor.
        mask: array or tensor `(batch, length)`, of the inputs as they were padded and cut.
        sequence_length: int or `None`. Length to which the inputs were cut.
        dtype: str. Floats of the inputs.

    Returns:
        `(batch, length)`, of the kind of the mask.

    Raises:
        ValueError: unless there is one number for each step of the inputs.
    """
    if not isinstance(mask, np.ndarray):
        return _padded_tensor(timesteps, mask, dtype)
    ragged = isinstance(timesteps, (list, tuple))
    rows = timesteps if ragged else np.asarray(ops.convert_to_numpy(timesteps))
    rows = [np.asarray(row if ragged else ops.convert_to_numpy(row)) for row in rows]
    padded = np.ones(mask.shape, dtype)
    lengths = mask.sum(axis=1) if ragged else np.full(len(mask), mask.shape[1])
    if len(rows) != len(mask):
        raise ValueError(
            f"`timesteps` must have one row for each of {len(mask)} rows of the inputs. "
            f"Received: {len(rows)} rows"
        )
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        cut = sequence_length is not None and len(row) > length == sequence_length
        short = sequence_length is not None and not ragged and len(row) < length
        if row.ndim != 1 or not (len(row) == length or cut or short):
            raise ValueError(
                f"`timesteps` must hold one number for each step: {length} in row {i}. "
                f"Received: shape {row.shape}"
            )
        padded[i, : len(row[:length])] = row[:length]
    return padded


def _padded_tensor(timesteps, mask, dtype):
    import tensorflow as tf

    timesteps = tf.cast(timesteps, dtype)
    if isinstance(timesteps, tf.RaggedTensor):
        timesteps = timesteps.to_tensor(1.0)
    length = tf.shape(mask)[1]
    missing = tf.maximum(0, length - tf.shape(timesteps)[1])
    timesteps = tf.pad(timesteps, [[0, 0], [0, missing]], constant_values=1.0)[:, :length]
    return tf.ensure_shape(timesteps, mask.shape)
