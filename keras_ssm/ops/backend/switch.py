"""The switch that turns every fast path off."""

import os


def fast_paths_enabled():
    """Whether fast paths may run: `False` while `KERAS_SSM_FAST_PATHS` is `0`.

    Returns:
        bool. The environment is read at every call.
    """
    return os.environ.get("KERAS_SSM_FAST_PATHS", "1") != "0"
