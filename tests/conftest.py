import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.hub_client import point_client
from tests.hub_server import HubServer
from tests.small_preset import INFO, X, make_model


@pytest.fixture(autouse=True)
def clean_slate():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)  # a collection takes longer than most tests


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """A float64 policy, where keras.ops keep float64 throughout: on TensorFlow."""
    if keras.config.backend() != "tensorflow":
        pytest.skip("keras.ops lose float64 on this backend")
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A preset and the predictions of the model that it holds."""
    directory = tmp_path_factory.mktemp("presets") / "small"
    model = make_model()
    model.save_to_preset(directory, info=INFO)
    return directory, model.predict(X, verbose=0)


@pytest.fixture
def preset(saved, tmp_path):
    return Path(shutil.copytree(saved[0], tmp_path / "preset"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub, to which the client of this process talks with a token that may write."""
    server = HubServer()
    point_client(monkeypatch, server, tmp_path / "cache")
    yield server
    server.stop()
