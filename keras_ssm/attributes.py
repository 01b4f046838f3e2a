"""Attributes that a person sets: what acts is heard, what would change nothing is refused."""

import functools
import inspect

import keras
import numpy as np

_PACKAGE = f"{__package__}."
_OWNERS = {}  # name of an argument of a constructor: the first class that has it


class Attributes:
    """Layers and models whose settings are fixed when they are made.

    A setting that is read anew each time is a property, or one of `settable`. The rest raises an
    `AttributeError`: arguments of the constructor, weights and layers, what `build` found, and
    names that belong to a part of the layer or to another class of the family. Names of Keras,
    names that begin with an underscore and new ones are free.
    """

    settable = ()  # arguments of the constructor that are read anew
    complete_when_built = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and is_ours(cls):
            for name in _arguments_of(cls):
                _OWNERS.setdefault(name, cls.__name__)

    @classmethod
    def from_config(cls, config):
        try:
            return super().from_config(config)
        except TypeError as error:
            refused = error.__context__
            if isinstance(refused, ValueError) and "Received: " in str(refused):
                raise refused from None  # Keras prepends the whole configuration
            raise

    def __setattr__(self, name, value):
        if isinstance(value, np.generic):
            value = value.item()  # a configuration holds numbers of Python
        if not name.startswith("_") and name not in _names_of_keras(type(self)):
            self._check_settable(name, value)
            setter = _setter(self, name)
            if setter is not None and setter.__module__.startswith(_PACKAGE):
                setter(self, value)  # Keras would track a variable that is only read
                return
        super().__setattr__(name, value)
        if name == "built" and value and self.complete_when_built and not self.is_made():
            self.complete()

    def complete(self):
        """The end of constructor and `build`: what they set stays."""
        self._attributes = frozenset([*vars(self), *vars(self).get("_modules", ())])

    def is_made(self):
        """Whether constructor and `build` have set what they set."""
        return "_attributes" in vars(self)

    def attribute_parts(self):
        """The layers inside, whose attributes are theirs alone."""
        return ()

    def fixed_attribute(self, name):
        """Whether an attribute that there is keeps its value."""
        if name in _arguments(type(self)):
            return True
        if isinstance(getattr(self, name), keras.Variable | keras.Layer):
            return self.is_made()
        return is_ours(type(self)) and self.is_made() and name in self._attributes

    def has_own_attribute(self, name):
        """Whether this layer was made with such an attribute, past those of Keras."""
        return hasattr(self, name)

    def _check_settable(self, name, value):
        is_property = _setter(self, name) is not None
        if is_property and (name in self.settable or name not in _arguments(type(self))):
            return  # the property refuses values by itself
        if is_property or name in vars(self) or name in vars(self).get("_modules", ()):
            if getattr(self, name) is not value and self._keeps(name):
                raise AttributeError(f"{self._why(name)} Received: {name}={value!r}")
            return
        if hasattr(type(self), name):
            method = callable(getattr(type(self), name))
            if self.is_made() and is_ours(type(self)) and (not method or name in _OWNERS):
                raise AttributeError(
                    f"`{name}` says what a {type(self).__name__} is and cannot be set. "
                    f"Received: {name}={value!r}"
                )
            return
        if name in _arguments(type(self)):
            if self.is_made() and is_ours(type(self)):
                raise AttributeError(f"{self._why(name)} Received: {name}={value!r}")
        elif not isinstance(value, keras.Layer):
            self._refuse_of_others(name, value)

    def _keeps(self, name):
        return name not in self.settable and self.fixed_attribute(name)

    def _why(self, name):
        old, subject = getattr(self, name, None), f"`{name}` of {self.name}"
        if isinstance(old, keras.Variable):
            return f"{subject} is a weight, which `{name}.assign(value)` changes."
        if isinstance(old, keras.Layer):
            return f"{subject} is part of its graph, which would keep the old one: make another."
        loads = ", or pass it to `from_preset`" if hasattr(self, "from_preset") else ""
        return f"{subject} is fixed when it is made: make another {type(self).__name__}{loads}."

    def _refuse_of_others(self, name, value):
        for part in self.attribute_parts():
            if part.has_own_attribute(name):
                raise AttributeError(
                    f"{self.name} has no attribute `{name}` and would not pass it on to "
                    f"{part.name}, which has one. Received: {name}={value!r}"
                )
        if name in _OWNERS and is_ours(type(self)) and self.is_made():
            raise AttributeError(
                f"{self.name} has no attribute `{name}`, which {_OWNERS[name]} has: nobody would "
                f"read it. Received: {name}={value!r}"
            )


def _setter(layer, name):
    """The function that sets a property, or `None`."""
    for cls in type(layer).__mro__:  # like `inspect.getattr_static`, but fast
        if name in vars(cls):
            return getattr(vars(cls)[name], "fset", None)
    return None


def is_ours(cls):
    """Whether a class is one of this package, and not of a user."""
    return cls.__module__.startswith(_PACKAGE)


def _arguments_of(cls):
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return frozenset(named[1:])


@functools.cache
def _arguments(cls):
    """Arguments of the constructors of a class and of those it is made of."""
    classes = [c for c in cls.__mro__ if "__init__" in vars(c) and is_ours(c)]
    return frozenset().union(*map(_arguments_of, classes))


@functools.cache
def _names_of_keras(cls):
    """Public names that the class from which this one is made sets and reads."""
    base = next(c for c in cls.__mro__ if c.__module__.startswith("keras."))
    if issubclass(base, keras.Model):
        x = keras.Input((1,), name="plain_input")
        plain = keras.Model(x, x, name="plain")
        set_later = {"optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"}
    else:
        plain, set_later = keras.Layer(name="plain"), {"config_file"}
    arguments = _arguments(cls) - {"name", "trainable", "dtype", "compile"}
    return frozenset([*dir(base), *dir(plain), *set_later]) - arguments
