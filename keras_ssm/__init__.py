"""State-space models for Keras 3: layers, task models and pretrained presets."""

import sys
from pathlib import Path

from keras_ssm.presets import list_presets
from keras_ssm.version import __version__

# Importing these registers every class with Keras. The command line, whose `--help` must not
# wait for a backend, imports what a command needs itself.
if Path(sys.argv[0]).stem != "keras-ssm":
    from keras_ssm import (
        convert,
        datasets,
        hub,
        initializers,
        layers,
        models,
        ops,
        optimizers,
        plotting,
        presets,
    )

__all__ = [
    "__version__",
    "convert",
    "datasets",
    "hub",
    "initializers",
    "layers",
    "list_presets",
    "models",
    "ops",
    "optimizers",
    "plotting",
    "presets",
]
