"""Functions of weights for inference, operation by operation."""

import keras
import torch
from keras import tree

from keras_ssm.keras_internals import value_of
from keras_ssm.ops.backend.torch.traced import traced


def program(function, variables, xla, eager):
    """A function for inference, operation by operation."""

    def without_values(*arguments):
        with torch.no_grad():
            return function(None, *tree.map_structure(_on_device, arguments))

    return without_values


def step_program(function, prepare, variables, sources, eager):
    """One that is traced after a few calls; tensors count how often they were written to."""

    def of_tensors(x, prepared, state):
        return function(None, prepared, x, state)

    step = of_tensors if eager else traced(of_tensors)
    last_weights = [(None, None)]

    def run(x, state):
        with torch.no_grad():
            before, prepared = last_weights[0]
            now = [*map(_version, map(value_of, sources))]
            if now != before:
                prepared = prepare()
                last_weights[0] = now, prepared
            return step(_on_device(x), prepared, state)

    return run


def _version(tensor):
    # The address too: the version of a new tensor in the same place starts at zero again.
    return tensor.data_ptr(), tensor._version


def _on_device(x):
    return None if x is None else keras.ops.convert_to_tensor(x)
