"""A function of tensors as a CUDA graph: one launch for all of its kernels, and no Python."""

import threading

import torch
from keras import tree


def records(x):
    """Whether functions of a tensor where x is can be recorded."""
    return x.is_cuda and torch.version.hip is None and not torch.cuda.is_current_stream_capturing()


def capture(function):
    """The outputs of a function, and a function that computes them again in the same memory."""
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function()
    return outputs, graph.replay


class Recording:
    """A function of trees of tensors that is replayed in memory of its own.

    What goes in is copied there, unless it is the tensor of the call before, and what comes out is
    copied from there. Weights that the function reads by itself are read where they lie.

    Args:
        function: function of trees of tensors. It must not wait for the device.
        arguments: trees of tensors, of the shapes that all calls have.
    """

    def __init__(self, function, arguments):
        self._turn = threading.Lock()  # threads share the memory
        # Within inference mode it would be memory that nobody may write to outside.
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = [_copied(x) for x in tree.flatten(arguments)]
            inputs = tree.pack_sequence_as(arguments, self._inputs)
            self._outputs, self._replay = capture(lambda: function(*inputs))
        self._seen = [None] * len(self._inputs)
        self._flat_outputs = tree.flatten(self._outputs)

    def __call__(self, *arguments):
        with self._turn:
            seen = [_identity(x) for x in tree.flatten(arguments)]
            pairs = zip(self._inputs, self._seen, seen, strict=True)
            fresh = [(mine, new[0]) for mine, old, new in pairs if not _same(old, new)]
            fresh = [(mine, new) for mine, new in fresh if torch.is_tensor(new)]
            if fresh:
                torch._foreach_copy_(*map(list, zip(*fresh, strict=True)))
            self._seen = seen
            self._replay()
            results = [_empty(x) for x in self._flat_outputs]
            tensors = [x for x in self._flat_outputs if torch.is_tensor(x)]
            torch._foreach_copy_([x for x in results if torch.is_tensor(x)], tensors)
        return tree.pack_sequence_as(self._outputs, results)


def _copied(x):
    return x.clone() if torch.is_tensor(x) else x


def _empty(x):
    return torch.empty_like(x) if torch.is_tensor(x) else x


def _identity(x):
    """A tensor, and how often it was written to, if PyTorch counts that."""
    counts = torch.is_tensor(x) and not x.is_inference()
    return x, x._version if counts else None


def _same(old, new):
    return old is not None and old[0] is new[0] and old[1] == new[1] is not None
