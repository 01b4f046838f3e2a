import contextlib
import importlib.util
import inspect
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.hub_client import point_client
from tests.hub_server import HubServer
from tests.small_preset import INFO, X, make_model

IMPORTS_TENSORFLOW = re.compile("^    import tensorflow", re.MULTILINE)

# Tests of what one backend alone has.
OF_ONE_BACKEND = {
    "jax": ["test_jax_precision.py", "test_jax_tree.py", "test_pallas.py"],
    "tensorflow": ["test_tensorflow_routes.py"],
    "torch": ["test_triton.py"],
}
collect_ignore = [
    name
    for backend, names in OF_ONE_BACKEND.items()
    for name in names
    if backend != keras.config.backend()
    or (name == "test_triton.py" and importlib.util.find_spec("triton") is None)
]


def pytest_collection_modifyitems(items):
    """Leaves out what this backend, or this environment, has no need of or cannot run."""
    items[:] = [item for item in items if _tells_something(item)]


def _tells_something(item):
    if "float64" in item.fixturenames and keras.config.backend() != "torch":
        # PyTorch, which compiles nothing, is compared with the recordings in float64.
        return item.path.name == "test_float64.py"
    # Data of TensorFlow on any backend, and models handed to it: a GPU machine may lack it.
    needs_tensorflow = (
        any(name in item.name for name in ("tensorflow", "tf.data", "tf_data"))
        or IMPORTS_TENSORFLOW.search(inspect.getsource(item.function)) is not None
    )
    return not needs_tensorflow or importlib.util.find_spec("tensorflow") is not None


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
