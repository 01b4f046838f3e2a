"""Attributes of a model that would be set and heard by nobody."""

import functools
import inspect

import keras

# Arguments of a constructor that are read anew, or by Keras.
SETTABLE = ("preprocessor", "name", "trainable", "dtype", "compile")


def refuse_unheard(model, name, value):
    """Raises an `AttributeError` for an attribute that would change nothing.

    Args:
        model: backbone or task, built.
        name: str. Attribute that somebody sets.
        value: What it is set to; a class derived from these may add layers of its own.
    """
    if name.startswith("_"):
        return
    if isinstance(value, keras.Layer):
        old = getattr(model, name, value)
        if old is not value and isinstance(old, keras.Layer) and name not in SETTABLE:
            raise AttributeError(
                f"`{name}` of {model.name} is part of its graph, which would go on with the old "
                f"one: make another model. Received: {name}={value!r}"
            )
        return
    if hasattr(model, name):
        if name in _constructor_arguments(type(model)) and name not in SETTABLE:
            raise AttributeError(
                f"`{name}` of {model.name} is fixed when the model is made: make another one, or "
                f"pass it to `from_preset`. Received: {name}={value!r}"
            )
        return
    for part in _parts(model):
        # Of a model only what it was made with: Keras sets `history` and more on each later.
        if isinstance(part, keras.Model):
            has = name in part._attributes or hasattr(type(part), name)
        else:
            has = hasattr(part, name)
        if has:
            raise AttributeError(
                f"{model.name} has no attribute `{name}` and would not pass it on to "
                f"{part.name}, which has one. Received: {name}={value!r}"
            )


@functools.cache
def _constructor_arguments(cls):
    return frozenset(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}


def _parts(model):
    """The backbone and preprocessor of a task, and the blocks and mixers of either."""
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        yield backbone
        if isinstance(model.preprocessor, keras.Layer):
            yield model.preprocessor
    for block in (backbone or model).blocks[:1]:
        yield from (block.mixer, block)
