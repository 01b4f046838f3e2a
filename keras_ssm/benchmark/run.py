"""One process a backend: Keras has one backend for a process."""

import json
import os
import subprocess
import sys
import tempfile

# (batch, length, features, state)
SHAPES = [(8, 1024, 128, 64), (8, 4096, 128, 64), (2, 16384, 128, 64), (1, 65536, 64, 64)]
QUICK_SHAPES = [(8, 1024, 128, 64)]
SYSTEMS = ["S4", "S4D", "S4PTD", "DSS", "S5", "S5PTD"]
OTHERS = ["LSTM", "GRU", "MultiHeadAttention"]


def run(backends, shapes, names, seconds, progress=lambda row: None):
    """Measures layers on several backends.

    Args:
        backends: list of str. Of `"jax"`, `"tensorflow"` and `"torch"`.
        shapes: list of `(batch, length, features, state)`.
        names: list of str. Of `SYSTEMS` and `OTHERS`.
        seconds: float. Time for each pair of functions that alternate.
        progress: function of each row as it is measured.

    Returns:
        List of dicts, the rows of `worker.rows`.

    Raises:
        RuntimeError: if a backend's process fails, with what it said.

    Example:
        ```python
        from keras_ssm.benchmark.run import run
        rows = run(["jax"], [(1, 64, 4, 8)], ["S4D"], seconds=0.01)
        ```
    """
    rows = []
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        job = json.dumps({"shapes": shapes, "names": names, "seconds": seconds})
        command = [sys.executable, "-m", "keras_ssm.benchmark.worker", job]
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
                raise RuntimeError(f"The benchmark failed on {backend}: {errors.read()[-2000:]}")
    return rows
