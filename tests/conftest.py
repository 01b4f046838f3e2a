import keras
import numpy as np
import pytest


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
