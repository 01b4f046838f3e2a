"""State-space models for Keras 3: layers, task models and pretrained presets."""

import importlib
import sys

from keras_ssm.presets import list_presets
from keras_ssm.version import __version__

__all__ = [
    "__version__",
    "callbacks",
    "convert",
    "datasets",
    "experiments",
    "forecasting",
    "hub",
    "initializers",
    "layers",
    "list_presets",
    "models",
    "ops",
    "optimizers",
    "plotting",
    "presets",
    "recipes",
    "signals",
    "sklearn",
    "tokenizers",
    "training",
]


def __getattr__(name):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


def _is_the_command():
    """Whether this process was started as `keras-ssm` or as `python -m keras_ssm`."""
    if "keras_ssm_command" in sys.modules:
        return True
    # While Python looks for the module that `-m` names, its path in `sys.argv` is "-m".
    arguments = getattr(sys, "argv", [])
    program = sys.orig_argv[-len(arguments)] if arguments[:1] == ["-m"] else ""
    return program.removeprefix("-m") == __name__


# Keras finds the classes of a saved model by the names under which they are registered, so all
# are imported here. The command imports only what it needs: help must not wait for Keras.
if not _is_the_command():
    from keras_ssm import (
        callbacks,
        convert,
        datasets,
        forecasting,
        hub,
        initializers,
        layers,
        models,
        ops,
        optimizers,
        plotting,
        presets,
        tokenizers,
    )
