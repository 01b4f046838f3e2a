"""Functions timed in turn, and the rate of a matrix product beside them."""

import time

import keras
import numpy as np

from keras_ssm.benchmark.stepping import passes


def alternate(functions, seconds, warm=2, least=3):
    """Median time of each function, run in turn, for `seconds` each or `least` times.

    Args:
        functions: list of functions without arguments.
        seconds: float.
        warm: int. Calls of each before it is timed.
        least: int. Fewest timed calls of each.

    Returns:
        List of floats, seconds.
    """
    times = [[] for _ in functions]
    for function in functions:
        for _ in range(warm):
            function()
    end = time.perf_counter() + seconds * len(functions)
    while len(times[0]) < least or time.perf_counter() < end:
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
