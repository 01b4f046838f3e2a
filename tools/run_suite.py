"""Runs the tests once for each backend, each in its own process, and sums up.

python tools/run_suite.py jax tensorflow torch [--slow]
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Most of the time on JAX is compilation of small graphs: cheap code, the same arithmetic.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
CLOSING = re.compile(r"\d+ (passed|failed|error|skipped).* in [\d.]+s")


def run(backend, slow):
    """Runs pytest on one backend; returns its exit code, closing line and duration."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--durations", "5"]
    command += [] if slow else ["-m", "not slow"]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.setdefault(name, "1")  # two processes share the cores already
    if backend == "jax":
        environment.setdefault("XLA_FLAGS", XLA_FLAGS)
    start, closing = time.time(), "no closing line"
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            closing = line.strip("= \n") if CLOSING.search(line) else closing
    return process.returncode, closing, time.time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="+", choices=["jax", "tensorflow", "torch"])
    parser.add_argument("--slow", action="store_true", help="include the tests marked slow")
    args = parser.parse_args()
    results = {}
    for backend in args.backends:
        print(f"\n##### {backend}", flush=True)
        results[backend] = run(backend, args.slow)
    print()
    for backend, (code, closing, seconds) in results.items():
        print(f"{backend:<10} {'ok' if code == 0 else 'FAILED'} in {seconds:.0f} s")
        print(f"===== {closing} =====")
    sys.exit(max(code for code, _, _ in results.values()))


if __name__ == "__main__":
    main()
