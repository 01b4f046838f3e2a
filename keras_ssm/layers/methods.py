"""What `method="auto"` takes: the fastest evaluation of those that were measured on the device.

`methods.csv` says how many times as fast as the published form of the layer, in the same run, a
training pass is by each method, and names the files of the measurements. `tools/method_table.py`
writes it.
"""

import csv
import functools
import math
from pathlib import Path

import keras

from keras_ssm.ops import backend

DEFAULT = "chunked"

# Another evaluation has to be so many times as fast as the default: less is noise.
FASTER = 1.1

# A measurement speaks of lengths up to so many times shorter or longer.
REACH = 4.0


def fastest_method(layer: str, length: int) -> str:
    """Returns the evaluation for a layer of this name and sequences of this length.

    It is `"chunked"` on a device, and for a length, of which nothing was measured.
    """
    measured = _measured(keras.config.backend(), backend.device_name(), layer)
    near = [(abs(math.log(length / known)), known) for known in measured]
    distance, known = min(near, default=(math.inf, None))
    return DEFAULT if distance > math.log(REACH) else measured[known]


@functools.cache
def _measured(backend_name, device, layer):
    """A dict of lengths and what was fastest there."""
    speedups = {}
    for row in rows():
        if (row["backend"], row["device"], row["layer"]) == (backend_name, device, layer):
            speedups.setdefault(int(row["length"]), {})[row["method"]] = float(row["speedup"])
    return {length: _fastest(of_method) for length, of_method in speedups.items()}


def _fastest(speedups):
    best = max(speedups, key=speedups.get)
    return best if speedups[best] > FASTER * speedups.get(DEFAULT, math.inf) else DEFAULT


def rows() -> list[dict]:
    """The measurements."""
    with Path(__file__).with_name("methods.csv").open(newline="") as file:
        return list(csv.DictReader(file))
