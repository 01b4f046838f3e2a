"""Times of every layer and evaluation, in turn with the published formulation."""

import functools

from keras_ssm.benchmark import arithmetic
from keras_ssm.benchmark.candidates import (
    candidates,
    mixer_class,
    picked_method,
    published_passes,
)
from keras_ssm.benchmark.run import KERNELS
from keras_ssm.benchmark.sections.stream import single_step
from keras_ssm.benchmark.timing import alternate, matmul_rate


def rows(shapes, names, methods, seconds, quick=False):
    """Yields a dict for each shape, layer and evaluation: times in seconds, ratios.

    `forward` and `training` (forward and all gradients) are medians; `published` is the training
    pass of the same system as published, in turn with ours, and `ratio` theirs over ours.
    `streamed` is one step of batch 1, compiled except on PyTorch. `fraction` is the arithmetic of
    the training pass over its time and the rate of a matrix product, measured on the spot.

    Args:
        shapes: list of `(batch, length, features, state)`.
        names: list of str.
        methods: list of str.
        seconds: float. Time for each function.
        quick: bool. Whether to spare time: no forward pass of the published formulation, and
            fewer calls of each function.
    """
    step = functools.cache(functools.partial(single_step, seconds=seconds))
    for shape in map(tuple, shapes):
        limit = matmul_rate(seconds)
        for name in names:
            for row in measure(name, shape, methods, seconds, quick):
                count, least = arithmetic.count(name, row["method"], shape)
                yield {
                    "layer": name,
                    "shape": list(shape),
                    **row,
                    "streamed": step(
                        name, *shape[2:], length=shape[1] if name in KERNELS else None
                    ),
                    "matmul_rate": limit,
                    "operations": count,
                    "least_operations": least,
                    "fraction": arithmetic.TRAINING * count / row["training"] / limit,
                    "forward_fraction": count / row["forward"] / limit,
                }


def measure(name, shape, methods, seconds, quick=False):
    """The rows of one layer, timed in turn; none for an attention that does not fit."""
    timed = candidates(name, shape, methods)
    if not timed:
        return []
    own_functions = [function for _, _, functions in timed for function in functions]
    published = published_passes(name, timed[0][0], shape) if mixer_class(name) else None
    published = published[quick:] if published else ()
    repeats = {"warm": 1, "least": 2} if quick else {}
    times = alternate([*own_functions, *published], seconds, **repeats)
    result = []
    for i, (_, method, _) in enumerate(timed):
        forward, training = times[2 * i : 2 * i + 2]
        row = {
            "method": method,
            "picked": method is not None and method == picked_method(name, shape),
        }
        row.update(forward=forward, training=training)
        if published:
            row.update(published=times[-1], ratio=times[-1] / training)
        if len(published) == 2:
            row["published_forward"] = times[-2]
        result.append(row)
    return result
