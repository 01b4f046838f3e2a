"""What all tests share: which of them a backend runs, and their fixtures."""

import contextlib
import gc
import importlib.util
import inspect
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.backend_tools import ON_GPU
from tests.hub_client import point_client
from tests.hub_server import HubServer
from tests.small_preset import INFO, X, make_model

BACKEND = keras.config.backend()
IMPORTS_TENSORFLOW = re.compile("^    import tensorflow", re.MULTILINE)

# Files about one backend's own code, which the others cannot import.
OWN = {
    "ops/test_blocks.py": ("jax", "tensorflow"),
    "ops/test_in_place.py": ("jax", "tensorflow"),
    "ops/test_jax_precision.py": ("jax",),
    "ops/test_jax_tree.py": ("jax",),
    "models/test_tensorflow_routes.py": ("tensorflow",),
    "ops/test_torch_functions.py": ("torch",),
    "ops/test_torch_precision.py": ("torch",),
    **dict.fromkeys(
        (
            "ops/test_triton.py",
            "ops/test_triton_dense.py",
            "ops/test_triton_pointwise.py",
            "ops/test_triton_selective.py",
        ),
        ("torch",) if importlib.util.find_spec("triton") else (),
    ),
    "ops/test_xla_scan.py": ("jax", "tensorflow"),
}
IGNORED = {
    Path(__file__).parent / name for name, backends in OWN.items() if BACKEND not in backends
}
ONCE = re.compile(r'^pytestmark = .*pytest\.mark\.once\("(\w+)"\)', re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Leaves out whole files, whose imports alone would take seconds."""
    if collection_path in IGNORED:
        return True
    if collection_path.suffix != ".py" or config.option.markexpr != "not slow":
        return None
    text = collection_path.read_text(encoding="utf-8")
    once = ONCE.search(text)
    return True if once and once[1] != BACKEND and "everywhere" not in text else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out what this backend, or this environment, has no need of or cannot run."""
    kept, others = [], []
    for item in items:
        (kept if _can_run(item) else others).append(item)
        if _tells_the_same(item):
            item.add_marker(pytest.mark.slow)
    items[:] = kept
    config.hook.pytest_deselected(items=others)


def _tells_the_same(item):
    """Whether the run of another backend tells the same, each time: see CONTRIBUTING.md."""
    kinds = ("once", "everywhere")
    # Marks of the test go before marks of its file.
    marks = [mark for mark in item.own_markers if mark.name in kinds]
    marks = marks or [*item.iter_markers("once")]
    return any(mark.name == "once" and BACKEND not in mark.args for mark in marks)


def _can_run(item):
    if ON_GPU and item.get_closest_marker("cpu"):
        return False
    if any(BACKEND not in mark.args for mark in item.iter_markers("only")):
        return False
    if "float64" in item.fixturenames and BACKEND != "torch":
        # PyTorch, which compiles nothing, is compared with the recordings in float64.
        return item.path.name == "test_float64.py"
    if importlib.util.find_spec("tensorflow") is not None:
        return True
    # Data of TensorFlow on any backend, and models handed to it: a GPU machine may lack it.
    named = any(name in item.name for name in ("tensorflow", "tf.data", "tf_data"))
    return not named and IMPORTS_TENSORFLOW.search(inspect.getsource(item.function)) is None


def pytest_collection_finish(session):
    """What was imported stays: collections of garbage, also those that Keras asks for, pass it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def eager(request):
    """Runs tests marked `eager` op by op on TensorFlow, which takes seconds to trace a model."""
    if BACKEND != "tensorflow" or request.node.get_closest_marker("eager") is None:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


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
    if BACKEND != "jax":
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
