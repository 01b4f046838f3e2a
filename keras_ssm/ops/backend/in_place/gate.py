"""A gate whose gradient computes its SiLU again, some steps at a time.

Of a SiLU of all steps XLA would see that it has been computed before, and keep it. And what is read
in a loop it does not keep as a part of a larger tensor.
"""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend.in_place.segments import Segments, steps_together


def gated(y, gate):
    """y silu(gate), for whose gradient y and the gate are kept on a CPU, and not the SiLU."""
    alike = len(y.shape) == 3 and y.shape == gate.shape and y.dtype == gate.dtype
    if not alike or not backend.writes_in_place(y) or steps_together(y) >= y.shape[1]:
        return _plain(y, gate)
    return backend.recomputed(_forward, _backward, _plain)(y, gate)


def _plain(y, gate):
    return y * ops.silu(gate)


def _forward(y, gate):
    segments = _segments(y)

    def segment(carry, i, parts):
        return carry, [_plain(*parts, *segments.read([gate], i))], None

    return segments.replace(segment, (), [y])[1][0], ()


def _backward(tensors, kept, upstream):
    y, gate = tensors
    segments = _segments(y)

    def segment(carry, i, parts):
        return carry, _slopes(*parts, *segments.read([y], i)), None

    return segments.replace(segment, (), [upstream, gate])[1]


def _segments(y):
    return Segments(y.shape[1], steps_together(y))


def _slopes(upstream, gate, y):
    share = ops.sigmoid(gate)
    silu = gate * share
    return [upstream * silu, upstream * y * (share + silu * (1 - share))]
