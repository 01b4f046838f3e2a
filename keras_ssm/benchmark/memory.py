"""Peak memory of a call, as the operating system counts it."""

import ctypes
import gc
from pathlib import Path

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")

# For the process: large blocks that are freed go back at once, instead of hiding what the next
# call takes. TensorFlow's oneDNN brings an allocator that keeps them.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "TF_ENABLE_ONEDNN_OPTS": "0"}


def available():
    """Whether the operating system tells what `peak_memory` asks."""
    return RESET.exists()


def peak_memory(function):
    """Returns by how many bytes a call raises the resident memory at its highest.

    Everything the call allocates counts: outputs, gradients and temporary results. Linux only,
    and exact only in a process started with `ENVIRONMENT`.

    Args:
        function: function without arguments. Call it once before, so that it is compiled.

    Returns:
        int.

    Raises:
        OSError: where the operating system does not tell.

    Example:
        ```python
        peak_memory(lambda: np.ones(2**20))  # about 8 MiB
        ```
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    RESET.write_text("5")
    before = _read("VmRSS")
    function()
    return max(0, _read("VmHWM") - before)


def peak_of_process():
    """Returns the largest resident memory since the last `peak_memory`, in bytes."""
    return _read("VmHWM")


def _read(key):
    for line in STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {key}")
