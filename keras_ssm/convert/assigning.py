"""Weights of a model from tensors that stay in their files, a few rows at a time."""

import numpy as np

from keras_ssm.convert.formats.published_weights import AXES, READ
from keras_ssm.ops import backend

# Bytes of a tensor up to which it is assigned whole. Larger tensors are written row by row into the
# memory of their weight.
WHOLE = 2**16


def assign_stored(variable, tensor, arranged, name):
    """Gives a weight the numbers of a tensor.

    Args:
        variable: Keras variable.
        tensor: `StoredTensor`, of the shape that the weight needs.
        arranged: str. Key of `published_weights.READ`.
        name: str. The tensor, for messages.

    Raises:
        ValueError: for numbers that are not finite, or a damaged file.
    """
    if arranged in AXES and tensor.nbytes > WHOLE:
        axis = AXES[arranged]
        for start, rows in tensor.pieces():
            part = READ[arranged](_checked(rows, variable, name))
            backend.assign_part(variable, part, start, axis)
        return
    value = READ[arranged](_checked(tensor.array(), variable, name))
    variable.assign(value.reshape(tuple(variable.shape)))


def hold_the_same(first, second):
    """Whether two tensors hold the same numbers."""
    if first.is_same_place(second):
        return True
    if first.shape != second.shape:
        return False
    pairs = zip(first.pieces(), second.pieces(), strict=False)
    return all(np.array_equal(mine, its) for (_, mine), (_, its) in pairs)


def _checked(numbers, variable, name):
    """The numbers in the dtype of a weight, as far as NumPy has it."""
    if numbers.dtype.kind != "f":
        raise ValueError(
            f"Tensor '{name}' must be of floats; quantised weights cannot be read. "
            f"Received: dtype={numbers.dtype}"
        )
    dtype = variable.dtype if variable.dtype in ("float16", "float64") else "float32"
    with np.errstate(over="ignore"):
        converted = numbers.astype(dtype, copy=False)
    if not np.isfinite(converted).all():
        bad = numbers[~np.isfinite(converted)]
        raise ValueError(
            f"Tensor '{name}' must be finite, also in the dtype of its weight, {variable.dtype}. "
            f"Received: {bad.size} entries that are not, such as {bad.flat[0]}"
        )
    return converted
