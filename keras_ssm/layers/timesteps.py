"""Times between samples, as a layer reads them."""

import numpy as np
from keras import ops

from keras_ssm.checks import compatible
from keras_ssm.ops import backend


def check_timesteps_shape(layer, received, expected):
    """Raises a `ValueError` unless the `timesteps` of a layer have this shape."""
    if not compatible(tuple(received), expected):
        raise ValueError(
            f"`timesteps` of {layer.name} must have shape {expected}. "
            f"Received: timesteps.shape={tuple(received)}"
        )


def checked_timesteps(layer, timesteps, expected, mask=None, from_zero=True):
    """The `timesteps` of a layer as a tensor, ones where they count for nothing.

    Raises:
        ValueError: for another shape, or for values that are not positive and finite, as far as
            they are known.
    """
    timesteps = uncovered(timesteps, mask, from_zero)
    timesteps = ops.cast(timesteps, layer.system_dtype)
    check_timesteps_shape(layer, timesteps.shape, expected)
    values = backend.static_value(timesteps)
    if values is not None and not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(
            f"`timesteps` of {layer.name} must be positive and finite. "
            f"Received: timesteps from {values.min()} to {values.max()}"
        )
    return timesteps


def uncovered(timesteps, mask, from_zero):
    """Ones in place of timesteps that count for nothing: those of padding at the ends."""
    timesteps = ops.convert_to_tensor(timesteps)
    if mask is None or not compatible(tuple(mask.shape), tuple(timesteps.shape)):
        return timesteps
    mask = ops.cast(ops.convert_to_tensor(mask), "int32")
    count = ops.cumsum(mask, axis=1)
    read = count[:, -1:] - count + mask > 0  # some step from here on is valid
    if from_zero:
        read = ops.logical_and(read, count > 0)
    return ops.where(read, timesteps, ops.ones_like(timesteps))
