"""One process for each section and backend: Keras has one backend for a process."""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from keras_ssm.benchmark.memory import ENVIRONMENT

# (batch, length, features, state); the fourth is there to compare with the fifth.
SHAPES = [
    (8, 1024, 128, 64),
    (8, 4096, 128, 64),
    (2, 16384, 128, 64),
    (1, 16384, 64, 64),
    (1, 65536, 64, 64),
]
QUICK_SHAPES = [(8, 1024, 128, 64)]
SYSTEMS = ["S4", "S4D", "S4PTD", "DSS", "S5", "S5PTD", "LRU", "SpaceTime"]
KERNELS = ["SGConv", "LongConv", "Hyena"]  # layers with kernels as long as the sequence
GATED = ["H3"]  # systems between projections that multiply
BLOCKS = ["GSS"]  # blocks with a bottleneck and a wide gate around a mixer, DSS
GRIDS = ["S4ND"]  # of images: square ones, of as many pixels as a sequence has steps
OTHERS = ["LSTM", "GRU", "MultiHeadAttention"]
QUICK_NAMES = [*SYSTEMS, "LSTM"]
METHODS = ["auto", "chunked", "fft", "recurrent"]

# The arguments of the job that each section takes.
SECTIONS = {
    "layers": ["shapes", "names", "methods", "seconds", "quick"],
    "memory": ["shapes", "names", "methods", "quick"],
    "stream": ["names", "seconds"],
    "fit": ["names", "seconds"],
    "long": ["names"],
    "selective": ["seconds"],
    "selective_memory": [],
    "decode": ["seconds", "context"],
}

# A part of the command `keras-ssm`: only what a section needs is imported.
WORKER = "import keras_ssm_command; from keras_ssm.benchmark.worker import main; main()"

FAMILY_ONLY = ("stream", "fit", "long")
MEMORY_COUNTED = ("memory", "long", "selective_memory")


def run(sections, backends, progress=lambda row: None, **job):
    """Measures on several backends.

    Args:
        sections: list of str. Of `SECTIONS`.
        backends: list of str. Of `"jax"`, `"tensorflow"` and `"torch"`.
        progress: function of each row as it is measured.
        **job: `shapes` (list of `(batch, length, features, state)`), `names` (of `SYSTEMS`,
            `KERNELS`, `GATED`, `BLOCKS`, `GRIDS` and `OTHERS`), `methods` (of `METHODS`), `seconds`
            (for each function that is timed), `quick` (bool), `context` (int); see the sections.

    Returns:
        List of dicts, the rows of `worker.rows`.

    Raises:
        RuntimeError: if a process fails, with what it said.

    Example:
        ```python
        from keras_ssm.benchmark.run import run
        job = {"shapes": [(1, 64, 4, 8)], "names": ["S4D"], "methods": ["auto"], "quick": True}
        rows = run(["memory"], ["jax"], **job)
        ```
    """
    rows, quick = [], job.get("quick", False)
    job.setdefault("context", None)
    with tempfile.TemporaryDirectory() as cache:
        for section in sections:
            arguments = {key: job[key] for key in SECTIONS[section]}
            if "names" in arguments:
                arguments["names"] = names_of(section, job["names"], quick)
            # Timed sections run one at a time. Long sequences would not fit side by side.
            together = quick and section in MEMORY_COUNTED
            with ThreadPoolExecutor(len(backends) if together else 1) as pool:
                measure = lambda backend: _worker(section, backend, arguments, progress, cache)  # noqa: B023
                for measured in pool.map(measure, backends):
                    rows += measured
    return rows


def names_of(section, names, quick=False):
    """Those of the names that a section measures."""
    family_only = section in FAMILY_ONLY or (quick and section == "memory")
    return [name for name in names if name in SYSTEMS] if family_only else list(names)


def _worker(section, backend, arguments, progress, cache):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # A program that two processes or layers share is compiled once.
    environment.update(
        JAX_COMPILATION_CACHE_DIR=cache,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    if section in MEMORY_COUNTED:
        environment.update(ENVIRONMENT)
    job = json.dumps({"section": section, **arguments})
    command = [sys.executable, "-c", WORKER, job]
    rows = []
    # Errors go to a file: a pipe that nobody reads would fill and stop the process.
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            for line in process.stdout:
                if line.startswith("{"):
                    rows.append(json.loads(line))
                    progress(rows[-1])
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(
                f"The benchmark failed on {backend} ({section}): {errors.read()[-2000:]}"
            )
    return rows
