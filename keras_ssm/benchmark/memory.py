"""Peak memory of a call, as the operating system counts it."""

import ctypes
import gc
from pathlib import Path

import keras

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def peak_memory(function):
    """Returns by how many bytes a call raises the resident memory at its highest.

    Everything the call allocates counts: outputs, gradients and temporary results. Freed memory
    that the allocator keeps is given back first. Linux only.

    Args:
        function: function without arguments. Call it once before, so that it is compiled.

    Returns:
        int, or `None` where the operating system does not tell, and on TensorFlow, whose
        allocator keeps what was freed: a second call would seem to need next to nothing.
    """
    if keras.config.backend() == "tensorflow":
        return None
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        RESET.write_text("5")
        before = _read("VmRSS")
        function()
        return max(0, _read("VmHWM") - before)
    except OSError:
        return None


def _read(key):
    for line in STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {key}")
