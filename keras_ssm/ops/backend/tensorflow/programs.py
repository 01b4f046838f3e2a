"""Functions of weights for inference, as graphs."""

import functools
import threading

import keras
import tensorflow as tf


def program(function, variables, xla, eager):
    """A function for inference, as a graph for each of the shapes of its arguments."""
    graphs = {}

    def run(*arguments):
        arguments = keras.tree.map_structure(_tensor, arguments)
        if eager:
            return function(None, *arguments)
        # A single traced function for all shapes would warn of each new shape.
        key = tuple((*x.shape, x.dtype) for x in tf.nest.flatten(arguments) if x is not None)
        if key not in graphs:
            without_values = functools.partial(function, None)
            graphs[key] = tf.function(without_values, jit_compile=bool(xla), autograph=False)
        return graphs[key](*arguments)

    return run


def step_program(function, prepare, variables, sources, eager):
    """One whose graph reads what was prepared from variables of its own.

    A variable does not tell that it was written to. So the graph returns a digest of the weights
    that were read for it, and where that is another, the step is made again.
    """
    if eager:
        return lambda x, state: function(None, prepare(), _tensor(x), state)
    return _Step(function, prepare, sources)


class _Step:
    def __init__(self, function, prepare, sources):
        self.function, self.prepare = function, prepare
        self.sources = [v.value for v in sources]
        self.graphs, self.prepared = {}, None
        self.digest = None  # of the weights from which the prepared tensors were computed
        self.lock = threading.Lock()

    def __call__(self, x, state):
        x = _tensor(x)
        step = self.graphs.get(x.shape) or self._graph(x, state)
        tensors = x, *tf.nest.flatten(state)
        seen = self.digest
        outputs = step(*tensors)
        digest = int(outputs[-1])
        if digest != seen:
            with self.lock:
                if digest != self.digest:
                    self._assign(self.prepare())
                    self.digest = digest
            outputs = step(*tensors)
        return outputs[0], tf.nest.pack_sequence_as(state, outputs[1:-1])

    def _graph(self, x, state):
        with self.lock:
            if self.prepared is None:
                self.prepared = tf.nest.map_structure(_variable, self.prepare())
            if x.shape not in self.graphs:

                def of_tensors(x, *tensors):
                    prepared = tf.nest.map_structure(_value, self.prepared)
                    following = tf.nest.pack_sequence_as(state, tensors)
                    y, following = self.function(None, prepared, x, following)
                    return y, *tf.nest.flatten(following), _digest(self.sources)

                # The concrete function: to search for it takes as long as a step.
                traced = tf.function(of_tensors, jit_compile=True, autograph=False)
                specs = map(tf.TensorSpec.from_tensor, (x, *tf.nest.flatten(state)))
                self.graphs[x.shape] = traced.get_concrete_function(*specs)
            return self.graphs[x.shape]

    def _assign(self, values):
        for variable, value in zip(
            tf.nest.flatten(self.prepared), tf.nest.flatten(values), strict=True
        ):
            if variable is not None:
                variable.assign(value)


def _digest(variables):
    """A number of the bits of all values, by their places."""
    total = tf.constant(0, tf.int32)
    for variable in variables:
        value = variable.read_value()
        value = tf.cast(value, tf.float32) if value.dtype.size < 4 else value
        bits = tf.reshape(tf.bitcast(value, tf.int32), [-1])
        odd = 2 * tf.range(tf.size(bits)) + 1
        total = 31 * total + tf.reduce_sum(bits * odd)
    return total


def _variable(x):
    return None if x is None else tf.Variable(x, trainable=False)


def _value(x):
    return None if x is None else x.read_value()


def _tensor(x):
    return None if x is None else tf.convert_to_tensor(x)
