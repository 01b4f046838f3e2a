"""The switch that turns the GPU kernels on."""

import os


def fast_paths_enabled():
    """Whether GPU kernels may run: only while `KERAS_SSM_FAST_PATHS` is `1`.

    They have been proven in their interpreters and compiled, but not measured on a GPU.

    Returns:
        bool. The environment is read at every call.
    """
    return os.environ.get("KERAS_SSM_FAST_PATHS", "0") == "1"
