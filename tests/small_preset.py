"""A small model and its preset, for the tests of files and of the Hub."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_ssm.layers import S4D
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier

ROOT = Path(__file__).resolve().parents[1]
X = np.random.default_rng(0).standard_normal((3, 9, 2)).astype("float32")
INFO = {
    "name": "small",
    "data": {"name": "noise of two features"},
    "licences": {"weights": "Apache-2.0", "data": "CC0-1.0"},
    "scores": [{"metric": "accuracy on 3 rows", "value": 0.5, "command": "python train.py"}],
}


def make_model():
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, input_dim=2)
    return SSMClassifier(backbone, 3, SequencePreprocessor(scale=0.5))


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def alter(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def run_python(code, *arguments, **environment):
    """Runs code, or the file of a `Path`, in a process of its own."""
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": found}
    environment = {**os.environ, **settings, **environment}
    what = [str(code)] if isinstance(code, Path) else ["-c", code]
    return subprocess.run(
        [sys.executable, *what, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
