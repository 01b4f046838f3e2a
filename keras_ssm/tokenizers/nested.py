"""Texts and rows of token ids in lists of any depth, arrays and tensors: taken out and put back."""

import keras
import numpy as np


def plain(inputs):
    """Arrays, tensors, tuples and ragged tensors as lists; strings and numbers stay.

    Args:
        inputs: what a person passed.
    """
    if isinstance(inputs, (str, bytes)):
        return inputs
    if isinstance(inputs, (list, tuple)):
        return [plain(entry) for entry in inputs]
    if isinstance(inputs, (np.ndarray, np.generic)):
        entries = inputs.tolist()
        return plain(entries) if inputs.dtype == object else entries
    if hasattr(inputs, "to_list"):  # ragged tensors of TensorFlow, columns of pandas
        return inputs.to_list()
    if type(inputs).__module__.startswith("tensorflow."):
        return plain(inputs.numpy())
    if keras.ops.is_tensor(inputs):
        return keras.ops.convert_to_numpy(inputs).tolist()
    return inputs


def map_leaves(function, inputs, is_leaf):
    """Applies a function once to all leaves of nested lists, and gives back the lists.

    Args:
        function: callable. Takes the list of all leaves, and returns as many results.
        inputs: nested lists.
        is_leaf: callable. Whether an entry is a leaf.

    Returns:
        The result of the leaf, or nested lists of results.
    """
    leaves = []

    def take(entry):
        if is_leaf(entry) or not isinstance(entry, list):
            leaves.append(entry)
        else:
            for inner in entry:
                take(inner)

    take(inputs)
    results = iter(function(leaves))

    def put(entry):
        if is_leaf(entry) or not isinstance(entry, list):
            return next(results)
        return [put(inner) for inner in entry]

    return put(inputs)


def is_text(entry):
    """Whether an entry of nested lists is one text."""
    return isinstance(entry, (str, bytes))


def is_row(entry):
    """Whether an entry of nested lists is one row of token ids."""
    return isinstance(entry, list) and not any(isinstance(inner, (list, str)) for inner in entry)
