"""A forward pass over a million steps."""

import time

from keras_ssm.benchmark.candidates import candidates
from keras_ssm.benchmark.memory import peak_memory, peak_of_process

SHAPE = (1, 2**20, 64, 64)


def rows(names, shape=SHAPE):
    """Yields a dict for each layer: time, memory of the pass and largest size of the process.

    Args:
        names: list of str. Layers of the family.
        shape: tuple `(batch, length, features, state)`.
    """
    for name in names:
        for _, method, (forward, _) in candidates(name, tuple(shape), ["auto"]):
            forward()
            start = time.perf_counter()
            memory = peak_memory(forward)
            seconds = time.perf_counter() - start
            yield {
                "layer": name,
                "shape": list(shape),
                "method": method,
                "forward": seconds,
                "forward_memory": memory,
                "process_memory": peak_of_process(),
            }
