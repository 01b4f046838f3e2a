"""Functions timed in turn, and the rate of a matrix product beside them."""

import time

import keras
import numpy as np

from keras_ssm.benchmark.stepping import passes


def alternate(functions, seconds):
    """Median time of each function, run in turn, for `seconds` each or three times.

    Args:
        functions: list of functions without arguments. Each runs twice before it is timed.
        seconds: float.

    Returns:
        List of floats, seconds.
    """
    times = [[] for _ in functions]
    for function in functions:
        function()
        function()
    end = time.perf_counter() + seconds * len(functions)
    while len(times[0]) < 3 or time.perf_counter() < end:
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [float(np.median(found)) for found in times]


def matmul_rate(seconds, size=2048):
    """Floating-point operations a second of a square float32 product on this backend."""
    a = np.ones((size, size), "float32")
    forward, _ = passes(lambda w, x: keras.ops.matmul(x, x), [np.zeros(1, "float32")], a, a)
    (usual,) = alternate([forward], min(seconds, 1.0))
    return 2 * size**3 / usual
