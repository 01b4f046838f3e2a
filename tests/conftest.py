import contextlib
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.hub_client import point_client
from tests.hub_server import HubServer
from tests.small_preset import INFO, X, make_model

collect_ignore = [] if keras.config.backend() == "jax" else ["test_jax_precision.py"]


def pytest_collection_modifyitems(items):
    """Recordings are compared in float64 on PyTorch, which compiles nothing, and `test_float64`
    on each backend."""
    if keras.config.backend() != "torch":
        items[:] = [
            item
            for item in items
            if "float64" not in item.fixturenames or item.path.name == "test_float64.py"
        ]


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
    """A float64 policy; on JAX also its mode in which there is a float64."""
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    with _x64():
        yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def _x64():
    if keras.config.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


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
