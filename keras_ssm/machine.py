"""The machine and the versions that a benchmark ran on."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("keras-ssm", "keras", "jax", "tensorflow", "torch", "numpy")


def describe():
    """Returns a dict: processor, cores, memory in bytes, GPUs, system, Python, package versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor():
    """Its name; on Linux with the numbers that tell processors of one name apart."""
    name = _line("/proc/cpuinfo", "model name") or platform.processor()
    numbers = [_line("/proc/cpuinfo", key) for key in ("cpu family", "model\t")]
    return f"{name}, family {numbers[0]}, model {numbers[1]}" if all(numbers) else name


def _gpus():
    """The names of NVIDIA's cards, as their driver tells them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True)
    return result.stdout.split("\n")[:-1] if result.returncode == 0 else []


def _line(path, key):
    """The value of a key in a file of `/proc`, or `None`."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return values[0] if values else None
