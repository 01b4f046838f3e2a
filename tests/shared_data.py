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
