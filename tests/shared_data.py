"""Where recorded numbers and other data that the project does not hold are found."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("KERAS_SSM_SHARED", HERE.parents[1] / "shared"))


def golden(name):
    """Returns the arrays and the description of a recording, or skips the test."""
    for root in (HERE / "golden", SHARED / "goldens"):
        path = root / f"{name}.npz"
        if path.is_file():
            return np.load(path), json.loads(path.with_suffix(".json").read_text())
    pytest.skip(f"no recording {name}: set KERAS_SSM_SHARED to the folder that holds goldens/")


def checkpoint(name):
    """Returns the path of a recorded checkpoint, or skips the test."""
    for root in (HERE / "golden" / "checkpoints", SHARED / "goldens/checkpoints"):
        if (root / name).is_file():
            return root / name
    pytest.skip(f"no checkpoint {name}: set KERAS_SSM_SHARED to the folder that holds goldens/")


def shared(name):
    """Returns a path below the shared folder, or skips the test."""
    if not (SHARED / name).exists():
        pytest.skip(f"no {name}: set KERAS_SSM_SHARED to the folder that holds it")
    return SHARED / name
