"""Large layers whose weights come from a file start at zero: drawing numbers takes memory."""

import contextlib
import contextvars

import keras

_FROM_FILE = contextvars.ContextVar("from_file", default=False)


@contextlib.contextmanager
def weights_from_file():
    """A context in which layers are made whose weights are then all assigned."""
    token = _FROM_FILE.set(True)
    try:
        yield
    finally:
        _FROM_FILE.reset(token)


@contextlib.contextmanager
def initialised(layer, name):
    """A context in which a layer is built: its initializer of that name may give way to zeros."""
    initializer = getattr(layer, name)
    if _FROM_FILE.get():
        setattr(layer, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        setattr(layer, name, initializer)
