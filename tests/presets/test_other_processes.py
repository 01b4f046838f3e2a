"""A person's script in a process of its own, under another backend: files go there and back."""

import re

import keras
import numpy as np
import pytest

from keras_ssm.models import SSMClassifier
from tests.backend_tools import BACKEND, relative_error
from tests.hub_client import environment
from tests.hub_server import HubServer
from tests.small_preset import INFO, X, make_model, run_python

QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

# The package is imported first and nothing of it by name: Keras must find the classes of files.
SCRIPT = """
import sys
import keras_ssm, keras
import numpy as np

folder, *publishes = sys.argv[1:]
x = np.load(folder + "/x.npy")
loaded = keras.models.load_model(folder + "/here.keras")
text = keras.models.model_from_json(open(folder + "/here.json").read())
text.set_weights(loaded.get_weights())
layer = keras.saving.deserialize_keras_object(
    {"class_name": "S4D", "registered_name": "keras_ssm>S4D", "config": {"state_dim": 4}}
)
assert isinstance(layer, keras_ssm.layers.S4D) and keras_ssm.models and keras_ssm.plotting
outputs = [model.predict(x, verbose=0) for model in (loaded, text)]
stream = loaded.stream(batch_size=3)
stream.load(folder + "/stream.npz")
np.save(folder + "/streamed.npy", stream(x[:, 4:6]))
np.savez(folder + "/stream.npz", **stream.state)

backbone = keras_ssm.models.SSMBackbone(
    keras_ssm.layers.S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, input_dim=2
)
model = keras_ssm.models.SSMClassifier(backbone, num_classes=3)
model.fit(x, np.arange(3), epochs=2, verbose=0)
model.save(folder + "/there.keras")
model.save_to_preset(folder + "/there")
model.backbone.step_scale = 1.0
moments = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
np.savez(folder + "/there.npz", model.predict(x, verbose=0), *moments)

if publishes:
    from keras_ssm.cli import main

    main(["publish", folder + "/preset", "me/small"], standalone_mode=False)
    published = keras_ssm.models.SSMClassifier.from_preset("hf://me/small")
    outputs.append(published.predict(x, verbose=0))
np.save(folder + "/outputs.npy", outputs)
"""


@pytest.fixture
def script(preset, tmp_path):
    """Runs the script under a name that is also that of the command."""
    np.save(tmp_path / "x.npy", X)
    path = tmp_path / "keras-ssm.py"
    path.write_text(SCRIPT)

    def run(*arguments, **settings):
        result = run_python(path, str(tmp_path), *arguments, **settings)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    return run


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("jax", marks=pytest.mark.once("torch")),
        pytest.param("tensorflow", marks=pytest.mark.once("jax")),
        pytest.param("torch", marks=pytest.mark.once("tensorflow")),
    ],
)
@pytest.mark.eager
def test_files_go_to_every_backend_and_back(other, tmp_path, saved, script):
    """Round in a ring each time, all nine pairs in `make test-all`; optimizer and Hub included."""
    here = make_model()
    here.save(tmp_path / "here.keras")
    (tmp_path / "here.json").write_text(here.to_json())
    stream = here.stream(batch_size=3)
    stream(X[:, :4])
    stream.save(tmp_path / "stream.npz")
    publishes = (BACKEND, other) == ("torch", "jax")
    settings = {"KERAS_BACKEND": other}
    if other == "jax":
        settings["XLA_FLAGS"] = QUICK_TO_COMPILE
    if publishes:
        server = HubServer(lfs=(".h5",))
        settings.update(environment(server, tmp_path / "cache"))
    output = script(*["publish"] * publishes, **settings)
    outputs = np.load(tmp_path / "outputs.npy")
    for found in outputs[:2]:
        assert relative_error(found, here.predict(X, verbose=0)) < 2e-5
    if publishes:
        server.stop()
        assert relative_error(outputs[2], saved[1]) < 2e-5
        assert "downloaded again and compared" in output and re.search(
            r"commit [0-9a-f]{40}", output
        )
        assert INFO["name"] in server.repositories["me/small"].files()["README.md"].decode()

    # The stream continued in that process, and continues here.
    streamed = np.load(tmp_path / "streamed.npy")[:, -1]
    assert relative_error(streamed, here.predict(X[:, :6], verbose=0)) < 2e-5
    stream.load(tmp_path / "stream.npz")
    assert relative_error(stream(X[:, 6:])[:, -1], here.predict(X, verbose=0)) < 2e-5

    stored = np.load(tmp_path / "there.npz")
    expected, *moments = (stored[key] for key in stored.files)
    model = keras.models.load_model(tmp_path / "there.keras")
    for found in (model, SSMClassifier.from_preset(tmp_path / "there")):
        assert relative_error(found.predict(X, verbose=0), expected) < 2e-5
    assert isinstance(model.optimizer, keras.optimizers.MultiOptimizer)
    for found, moment in zip(model.optimizer.variables, moments, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), moment, rtol=1e-6)
    if BACKEND == "jax" and other == "tensorflow":
        assert model.jit_compile
    model.fit(X, np.arange(3), verbose=0)
    assert np.isfinite(model.predict(X, verbose=0)).all()
