"""Functions of tensors as lists of operations, without the Python around them."""

import warnings

import torch
from keras import tree

from keras_ssm.ops.backend.torch import recording

CALLS_BEFORE = 24  # calls that cost less than a trace
# Errors of tracing for functions that read the values of their tensors.
EXPECTED = (RuntimeError, TypeError, ValueError, NotImplementedError)


def traced(function):
    """The same function, traced when it has been called a few times with a batch.

    Most of a small step is Python: checks, casts and calls of layers. What is traced holds the
    operations alone, and reads the weights where they lie. On an NVIDIA GPU they are recorded as a
    CUDA graph. A function that looks into its tensors, or of which the next call tells another
    result, runs as it is.
    """
    calls, graphs = {}, {}

    def run(*arguments):
        key = (*arguments[0].shape, arguments[0].device)
        if key in graphs:
            return graphs[key](*arguments)
        calls[key] = calls.get(key, 0) + 1
        if calls[key] == CALLS_BEFORE:
            graphs[key] = _compared(
                function, arguments, lambda program: graphs.update({key: program})
            )
        return function(*arguments)

    return run


def _compared(function, arguments, keep):
    """What is called next: it runs both forms and keeps the traced one if they agree."""
    try:
        graph = _operations(function, arguments)
        if recording.records(arguments[0]):
            graph = recording.Recording(graph, arguments)
    except EXPECTED:
        return function
    except Exception as error:  # of whatever kind: the step itself runs
        _warn(error)
        return function

    def both(*arguments):
        outputs = function(*arguments)
        try:
            pairs = zip(tree.flatten(outputs), tree.flatten(graph(*arguments)), strict=True)
            agrees = all(torch.allclose(a, b, equal_nan=True) for a, b in pairs)
        except Exception as error:
            _warn(error)
            agrees = False
        keep(graph if agrees else function)
        return outputs

    return both


def _operations(function, arguments):
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake tensors have no values: a function that reads a value fails here.
    make = make_fx(lambda *x: function(*x), tracing_mode="fake", _allow_non_fake_inputs=True)
    graph = make(*arguments)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _warn(error):
    warnings.warn(
        "A step could not be traced, and goes on as it is, slower. "
        f"Received: {type(error).__name__}: {error}",
        stacklevel=2,
    )
