"""Gates: products of a tensor and a function of another one."""

from keras import ops


def gated(y, gate):
    """y silu(gate)."""
    return y * ops.silu(gate)


def sigmoid_gated(y, gate):
    """y sigmoid(gate)."""
    return y * ops.sigmoid(gate)


def glu(z):
    """The first half of the last axis times the sigmoid of the second."""
    return sigmoid_gated(*ops.split(z, 2, axis=-1))
