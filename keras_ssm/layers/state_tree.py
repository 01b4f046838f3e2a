"""Trees of states. One tensor and dicts of tensors are read in every step: `keras.tree` is slow."""

import keras
from keras import tree


def map_shapes(function, shapes):
    """Applies a function to every shape of a tree of shapes."""
    if isinstance(shapes, tuple) and all(isinstance(n, int) for n in shapes):
        return function(shapes)
    if type(shapes) is dict:
        return {name: map_shapes(function, part) for name, part in shapes.items()}
    return tree.map_shape_structure(function, shapes)


def map_parts(function, spec, state):
    """Applies a function of a `keras.KerasTensor` and a tensor to every part of a state.

    Raises:
        TypeError or ValueError: for a state of another structure.
    """
    if isinstance(spec, keras.KerasTensor):
        return function(spec, state)
    if type(spec) is dict and type(state) is dict and spec.keys() == state.keys():
        return {name: map_parts(function, part, state[name]) for name, part in spec.items()}
    return tree.map_structure_up_to(spec, function, spec, state)
