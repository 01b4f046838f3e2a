"""Functions timed in turn, and the rate of a matrix product beside them."""

import time

import keras
import numpy as np

from keras_ssm.benchmark.stepping import passes

# Seconds after which a function has been timed often enough, whatever `least` says.
LONG = 20.0

# The share of a function's time for which the next one runs before it is timed.
SETTLES = 0.2


def alternate(functions, seconds, warm=2, least=3, clock=time.perf_counter):
    """Median time of each function, run in turn, for `seconds` each or `least` times.

    Before a function is timed, it runs untimed for a fifth of the time that the function before it
    took. What that one left behind in caches and memory does not count: a training would not meet
    it. XLA, for one, frees the memory of a pass only after its result is there. The next program
    that asks for memory waits for that, 0.1 seconds for a gigabyte.

    Functions that take long run less often. Those of more than `LONG` / 20 seconds run only when
    they are timed, and none runs again after `LONG` seconds in all.

    Args:
        functions: list of functions without arguments.
        seconds: float.
        warm: int. Calls of each before it is timed.
        least: int. Fewest timed calls of each.
        clock: function that returns seconds. `time.process_time` counts those of the processor.

    Returns:
        List of floats, seconds.
    """
    times, short = [[] for _ in functions], []
    for function, taken in zip(functions, times, strict=True):
        for _ in range(warm):
            took = _timed(function, clock)
            if took > LONG:  # compilation is a small part of it
                taken.append(took)
            if took > LONG / 4:
                break
        if took < LONG / 20:
            short.append(function)
    start, todo = time.perf_counter(), zip(functions, times, strict=True)
    todo = [(function, taken) for function, taken in todo if not taken]
    before = 0.0
    while todo:
        for function, taken in todo:
            if function in short:
                _settle(function, SETTLES * before)
            before = _timed(function, clock)
            taken.append(before)
        over = time.perf_counter() - start >= seconds * len(functions)
        todo = [
            (function, taken)
            for function, taken in todo
            if sum(taken) < LONG and (len(taken) < least or not over)
        ]
    return [float(np.median(taken)) for taken in times]


def _settle(function, seconds):
    """Runs a function once, and again until the time is over."""
    end = time.perf_counter() + seconds
    function()
    while time.perf_counter() < end:
        function()


def _timed(function, clock):
    start = clock()
    function()
    return clock() - start


def matmul_rate(seconds, size=2048):
    """Floating-point operations a second of a square float32 product on this backend."""
    a = np.ones((size, size), "float32")
    forward, _ = passes(lambda w, x: keras.ops.matmul(x, x), [np.zeros(1, "float32")], a, a)
    (usual,) = alternate([forward], min(seconds, 1.0))
    return 2 * size**3 / usual
