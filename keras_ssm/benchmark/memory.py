"""Peak memory of a call."""

import ctypes
import gc
from pathlib import Path

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")

# A setting of the process: large blocks go back to the system as soon as they are freed. Else they
# would hide the memory of the next call.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def available():
    """Whether the operating system tells the numbers that `peak_memory` needs."""
    return RESET.exists()


def peak_memory(function):
    """Returns how many bytes a call takes at its highest.

    Everything the call allocates counts: outputs, gradients and temporary results. TensorFlow's
    allocator counts where it can (on a GPU, and on a CPU with oneDNN), since that one keeps freed
    memory, and on a GPU PyTorch's; of a program of JAX there what XLA reserves for it. Elsewhere
    the operating system tells the resident memory: Linux only, and exact only in a process
    started with `ENVIRONMENT`.

    Args:
        function: function without arguments. Call it once before, so that it is compiled. On a
            GPU JAX asks for one that `stepping.passes` made.

    Returns:
        int.

    Raises:
        OSError: where the operating system does not tell.

    Example:
        ```python
        peak_memory(lambda: ops.ones(2**20))  # about 4 MiB
        ```
    """
    import keras  # not needed to know whether memory can be counted

    gc.collect()
    device = {"tensorflow": _counting_device}.get(keras.config.backend(), lambda: None)()
    if device is not None:
        return _allocated(function, device)
    if on_gpu():
        return {"jax": _reserved, "torch": _allocated_by_torch}[keras.config.backend()](function)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    RESET.write_text("5")
    before = _read("VmRSS")
    function()
    return max(0, _read("VmHWM") - before)


def _counting_device():
    """The TensorFlow device that calls run on, or `None` if its allocator does not count."""
    from tensorflow import config

    device = "GPU:0" if config.list_logical_devices("GPU") else "CPU:0"
    try:
        config.experimental.reset_memory_stats(device)
    except ValueError:  # the plain allocator of a CPU without oneDNN
        return None
    return device


def _allocated(function, device):
    from tensorflow import config

    before = config.experimental.get_memory_info(device)["current"]
    function()
    return config.experimental.get_memory_info(device)["peak"] - before


def on_gpu():
    """Whether tensors are on a GPU by default, on JAX or PyTorch."""
    import keras

    tells = {"jax": lambda x: x.device.platform == "gpu", "torch": lambda x: x.is_cuda}
    return tells.get(keras.config.backend(), lambda x: False)(keras.ops.zeros(()))


def _allocated_by_torch(function):
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = function()
    torch.cuda.synchronize()
    del outputs
    return torch.cuda.max_memory_allocated() - before


def _reserved(function):
    if not hasattr(function, "compiled"):
        raise TypeError("On a GPU JAX tells the memory of the passes of `stepping.passes` alone.")
    analysis = function.compiled().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def peak_of_process():
    """Returns the largest resident memory since the last `peak_memory`, in bytes."""
    return _read("VmHWM")


def _read(key):
    for line in STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {key}")
