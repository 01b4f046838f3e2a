"""Records the float64 logits of a digits preset, against which every backend is tested.

    KERAS_BACKEND=tensorflow python tools/record_logits.py s4d_digits

TensorFlow, because keras.ops keep float64 throughout only there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_ssm

name = sys.argv[1]
if keras.config.backend() != "tensorflow":
    sys.exit(f"run with KERAS_BACKEND=tensorflow. Received: {keras.config.backend()}")
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
model = keras_ssm.models.SSMClassifier.from_preset(name)
_, (x, _) = keras_ssm.datasets.digits()
logits = keras.ops.convert_to_numpy(model(model.preprocessor(x)))
path = Path(__file__).resolve().parents[1] / "tests" / "golden" / "presets" / f"{name}.npy"
path.parent.mkdir(parents=True, exist_ok=True)
np.save(path, logits)
print(f"{logits.dtype} logits {logits.shape} in {path}")
