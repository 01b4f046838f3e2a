"""Runs the tests once for each backend, each in its own process, and sums up.

python tools/run_suite.py jax tensorflow torch [--slow]
python tools/run_suite.py jax torch --gpu [--workers 4]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Most of the time on JAX is compilation of small graphs: cheap code, the same arithmetic.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# A small graph that a process of this run has compiled is read by the others, and by later tests.
CACHED_BY_JAX = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# What has nothing to do with a device, or measures the processor.
NOT_ON_GPU = ("benchmark/*", "cli/*", "convert/*", "hub/*", "initializers/*", "plotting/*")
NOT_ON_GPU += ("test_docs.py", "presets/test_hub_loading.py", "presets/test_migrations.py")
NOT_ON_GPU += ("presets/test_registry.py",)
CLOSING = re.compile(r"\d+ (passed|failed|error|skipped).* in [\d.]+s")


def command_of(slow, gpu, workers):
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--durations", "5"]
    command += ["--dist", "worksteal"]  # a file stays in one process, which makes its models once
    command += [] if slow else ["-m", "not slow"]
    return command + [f"--ignore-glob=tests/{name}" for name in NOT_ON_GPU if gpu]


def environment_of(backend, gpu):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Without files of bytecode every process would compile the tests and the package anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.setdefault(name, "1")  # the processes share the cores already
    if gpu:
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # and the memory
    elif backend == "jax":
        environment.setdefault("XLA_FLAGS", XLA_FLAGS)
    return environment


def device_of(backend):
    """The GPU that this backend would take, or `None`."""
    code = {
        "jax": "import jax; print(jax.devices()[0].device_kind if "
        "jax.default_backend() == 'gpu' else '')",
        "tensorflow": "import tensorflow as tf; print(*tf.config.list_physical_devices('GPU'))",
        "torch": "import torch; print(torch.cuda.get_device_name() if "
        "torch.cuda.is_available() else '')",
    }[backend]
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment_of(backend, True),
    )
    return found.stdout.strip() or None


def run(backend, slow, gpu, workers):
    """Runs pytest on one backend; returns its exit code, closing line and duration."""
    command, environment = command_of(slow, gpu, workers), environment_of(backend, gpu)
    start, closing = time.time(), "no closing line"
    with (
        tempfile.TemporaryDirectory() as cache,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **CACHED_BY_JAX, "JAX_COMPILATION_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout:
            print(line, end="", flush=True)
            closing = line.strip("= \n") if CLOSING.search(line) else closing
    return process.returncode, closing, time.time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="+", choices=["jax", "tensorflow", "torch"])
    parser.add_argument("--slow", action="store_true", help="include the tests marked slow")
    parser.add_argument("--gpu", action="store_true", help="the tests that a device can change")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    args = parser.parse_args()
    results = {}
    for backend in args.backends:
        device = device_of(backend) if args.gpu else None
        if args.gpu and device is None:
            sys.exit(f"{backend} finds no GPU")
        print(f"\n##### {backend}{f' on {device}' if device else ''}", flush=True)
        results[backend] = run(backend, args.slow, args.gpu, args.workers)
    print()
    for backend, (code, closing, seconds) in results.items():
        print(f"{backend:<10} {'ok' if code == 0 else 'FAILED'} in {seconds:.0f} s")
        print(f"===== {closing} =====")
    sys.exit(max(code for code, _, _ in results.values()))


if __name__ == "__main__":
    main()
