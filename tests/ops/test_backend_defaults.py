"""Each backend overrides names of the defaults, with the same arguments, and every one it must."""

import inspect

from keras_ssm.ops import backend
from keras_ssm.ops.backend import default
from tests.backend_tools import BACKEND_MODULE


def arguments(function):
    return list(inspect.signature(function).parameters)


def test_a_backend_overrides_names_that_there_are():
    assert set(BACKEND_MODULE.__all__) <= set(default.__all__)
    for name in BACKEND_MODULE.__all__:
        own, common = getattr(BACKEND_MODULE, name), getattr(default, name)
        assert getattr(backend, name) is own
        if all(inspect.isfunction(f) and "keras_ssm" in f.__module__ for f in (own, common)):
            assert arguments(own) == arguments(common), name


def test_nothing_is_left_that_a_backend_must_have():
    for name in default.__all__:
        value = getattr(backend, name)
        needed = name != "map_blocks" or backend.runs_in_blocks()
        if needed and inspect.isfunction(value) and value.__module__ == default.__name__:
            assert "raise NotImplementedError" not in inspect.getsource(value), name
