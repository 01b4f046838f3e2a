"""Records the float64 logits of a preset of the package, against which every backend is tested.

    KERAS_BACKEND=tensorflow python tools/record_logits.py s4d_digits

TensorFlow, because keras.ops keep float64 throughout only there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_ssm

TEXT = "MARIANA:\nWhat news of the duke?"  # that of tests/presets/test_language_presets.py

name = sys.argv[1]
if keras.config.backend() != "tensorflow":
    sys.exit(f"run with KERAS_BACKEND=tensorflow. Received: {keras.config.backend()}")
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
if "recipe" not in keras_ssm.list_presets()[name]:
    model = keras_ssm.models.SSMClassifier.from_preset(name)
    _, (x, _) = keras_ssm.datasets.digits()
    inputs = model.preprocessor(x)
else:
    model = keras_ssm.models.SSMCausalLM.from_preset(name)
    inputs = np.array(model.preprocessor.tokenizer([TEXT]))
logits = keras.ops.convert_to_numpy(model(inputs))
path = Path(__file__).resolve().parents[1] / "tests" / "golden" / "presets" / f"{name}.npy"
path.parent.mkdir(parents=True, exist_ok=True)
np.save(path, logits)
print(f"{logits.dtype} logits {logits.shape} in {path}")
