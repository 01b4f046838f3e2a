"""`keras.models.clone_model` of models whose class is more than their graph."""

import copy
import functools
import inspect

import keras

from keras_ssm.models.saving.adapted_files import apart


class Clones:
    """Models that `keras.models.clone_model` makes anew from their configuration.

    Keras runs the graph of a model through copies of its layers, and then makes a model of the
    new graph: of the same class where the constructor takes `*args` and `**kwargs`, as these do
    behind the signature that they show, of `Functional` otherwise.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _but_for_clones(cls.__init__)

    def __new__(cls, *args, **kwargs):
        clone = _clone_among(args)
        if clone is not None:
            return clone
        # With an argument that no constructor has, Keras leaves the configuration to `get_config`.
        # Else it would look for an argument `args` in a signature without required ones.
        return keras.Layer.__new__(cls, _configured_by_keras=False)

    def _run_through_graph(self, inputs, operation_fn=lambda op: op, call_fn=None):
        symbolic = all(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(inputs))
        if symbolic and isinstance(operation_fn(self.layers[-1]), keras.Operation):
            return _Clone(self._clone(inputs, operation_fn, call_fn))
        return super()._run_through_graph(inputs, operation_fn, call_fn)

    def _clone(self, inputs, clone_function, call_function):
        """A model of this configuration with fresh weights, if that is what the arguments ask."""
        name = type(self).__name__
        if inspect.getfullargspec(type(self).__init__).varargs is None:
            raise ValueError(
                f"{name}, whose constructor needs no arguments, is cloned by "
                f"`{name}.from_config(model.get_config())`. Received: model={self}"
            )
        if call_function is not None:
            raise ValueError(
                f"A clone of {name} calls its layers as {name} does, without a `call_function`. "
                f"Received: call_function={call_function}"
            )
        for key, symbol in self.input.items():
            new_input = inputs[key]
            if (new_input.shape, new_input.dtype, new_input.name) != (
                symbol.shape,
                symbol.dtype,
                symbol.name,
            ):
                raise ValueError(
                    f"A clone of {name} has inputs of its own: clone it without `input_tensors`, "
                    f"and call the clone on them. Received: input_tensors={inputs}"
                )
        parts = {}
        for layer in self.layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            copied = clone_function(layer)
            if layer is getattr(self, "backbone", None) and isinstance(copied, type(layer)):
                parts["backbone"] = copied
            elif (
                copied is layer
                or type(copied) is not type(layer)
                or copied.weights
                or copied.get_config() != _alike(layer).get_config()
            ):
                raise ValueError(
                    f"A clone of {name} has the layers of its configuration: `clone_function` "
                    f"must make {layer.name} anew as it is. Change the configuration instead: "
                    f"`{name}.from_config({{**model.get_config(), ...}})`. "
                    f"Received: {copied} in place of {layer}"
                )
        preprocessor = getattr(self, "preprocessor", None)
        if isinstance(preprocessor, keras.Layer):
            parts["preprocessor"] = copy.deepcopy(preprocessor)  # the files of its tokenizer too
        elif preprocessor is not None:
            parts["preprocessor"] = preprocessor  # a function has no state
        return type(self).from_config({**self.get_config(), **parts})

    def __reduce__(self):
        with apart():
            return super().__reduce__()


class _Clone:
    """Stands for the outputs of a graph while Keras makes a clone."""

    def __init__(self, model):
        self.model = model


def _clone_among(args):
    return next((part.model for part in args if isinstance(part, _Clone)), None)


def _alike(layer):
    return type(layer).from_config(layer.get_config())


def _but_for_clones(init):
    """The constructor, to which Keras may hand a clone that is made already."""
    if len(inspect.signature(init).parameters) < 2:  # `self` alone
        return init

    @functools.wraps(init)
    def wrapped(self, *args, **kwargs):
        if _clone_among(args) is None:
            init(self, *args, **kwargs)

    return wrapped
