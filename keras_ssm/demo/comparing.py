"""What the demonstrations share."""

import time

import numpy as np


def loaded(task, preset, console):
    """A model of a task class from a preset, with a line on its size."""
    start = time.perf_counter()
    model = task.from_preset(preset)
    seconds = time.perf_counter() - start
    console.print(f"loaded {model.count_params():,} parameters in {seconds:.1f} s")
    return model


def largest_difference(a, b):
    """The largest difference of two arrays, relative to the largest number of the second.

    It is infinite where only one of them is NaN.
    """
    if (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    return float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b)))
