"""The switch of the GPU kernels."""

import os


def fast_paths_enabled():
    """Whether GPU kernels may run where they were found to be right.

    Returns:
        bool. Unless `KERAS_SSM_FAST_PATHS` is `0`; the environment is read at every call.
    """
    return os.environ.get("KERAS_SSM_FAST_PATHS", "1") != "0"
