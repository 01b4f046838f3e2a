"""Records the float64 logits of a preset of the package, against which every backend is tested.

    KERAS_BACKEND=tensorflow python tools/record_logits.py s4d_digits

TensorFlow, because keras.ops keep float64 throughout only there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm.models.saving.preset_loading import load_model

TEXT = "MARIANA:\nWhat news of the duke?"  # that of tests/presets/test_language_presets.py

name = sys.argv[1]
if keras.config.backend() != "tensorflow":
    sys.exit(f"run with KERAS_BACKEND=tensorflow. Received: {keras.config.backend()}")
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
model = load_model(name)
origin = keras_ssm.list_presets()[name]["recipe"]
if origin["recipe"] == "digits":
    recipe = keras_ssm.recipes.get("digits")
    part = recipe.arrange(recipe.read_below(None), origin["settings"]).test
    inputs = model.preprocessor(part.x)
else:
    inputs = np.array(model.preprocessor.tokenizer([TEXT]))
logits = keras.ops.convert_to_numpy(model(inputs))
path = Path(__file__).resolve().parents[1] / "tests" / "golden" / "presets" / f"{name}.npy"
path.parent.mkdir(parents=True, exist_ok=True)
np.save(path, logits)
print(f"{logits.dtype} logits {logits.shape} in {path}")
