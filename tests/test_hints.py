"""What a person calls says which types it takes."""

import inspect

import pytest

from keras_ssm import (
    callbacks,
    convert,
    forecasting,
    hub,
    layers,
    models,
    optimizers,
    plotting,
    presets,
    signals,
    sklearn,
    training,
)

pytestmark = pytest.mark.once("torch")

MODULES = (callbacks, convert, forecasting, hub, layers, models, optimizers, plotting, presets)
MODULES += (signals, sklearn, training)
METHODS = ("__init__", "call", "step", "get_initial_state", "fit", "predict", "from_preset")


def _is_of(thing, module):
    named = inspect.isfunction(thing) or inspect.isclass(thing)
    return named and thing.__module__ == module.__name__ and not thing.__name__.startswith("_")


def public():
    """Name and function of what the modules offer, and of the methods that people call."""
    for module in MODULES:
        own = [name for name, thing in vars(module).items() if _is_of(thing, module)]
        for name in getattr(module, "__all__", own):
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield name, thing
            if not inspect.isclass(thing) or issubclass(thing, tuple):
                continue
            for method in METHODS:
                function = inspect.getattr_static(thing, method, None)
                function = getattr(function, "__func__", function)
                if getattr(function, "__module__", "").startswith("keras_ssm"):
                    yield f"{name}.{method}", function


def test_public_signatures_have_hints():
    lacking = [
        f"{name}({parameter.name})"
        for name, function in public()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.annotation is parameter.empty
        and parameter.name not in ("self", "cls")
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    assert lacking == [] and len(list(public())) > 60
