"""Which models are being called with inputs that were checked already."""

import contextlib
import contextvars

import keras

_PREPARED = contextvars.ContextVar("prepared", default=())


@contextlib.contextmanager
def prepared(model):
    """Within it the model, and a backbone inside it, take inputs that `standardize` returned.

    Args:
        model: a backbone or a task model.
    """
    before = _PREPARED.set((model, getattr(model, "backbone", model)))
    try:
        yield
    finally:
        _PREPARED.reset(before)


def is_prepared(model, inputs, mask):
    """Whether an outer call has already brought the inputs to standard form, as tensors.

    Args:
        model: the model that is called.
        inputs: what it is called with.
        mask: the mask of the call, which the inputs would not know of.
    """
    return (
        any(model is prepared for prepared in _PREPARED.get())
        and isinstance(inputs, dict)
        and set(model.input) <= set(inputs)
        and all(_is_tensor(x) for x in inputs.values())
        and all(leaf is None for leaf in keras.tree.flatten(mask))
    )


def _is_tensor(x):
    """Whether x is a tensor of the backend, or a symbolic one, without a mask of its own."""
    is_tensor = isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x)
    return is_tensor and getattr(x, "_keras_mask", None) is None
