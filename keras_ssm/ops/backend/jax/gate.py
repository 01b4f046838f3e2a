"""A gate on JAX, whose gradient computes its SiLU again, some steps at a time.

Of a SiLU of all steps XLA would see that it has been computed before, and keep it. And what is read
in a loop it does not keep as a part of a larger tensor.
"""

import jax

from keras_ssm.ops.backend.jax.segments import Segments

# Numbers of a segment, which a CPU's caches hold.
TOGETHER = 2**16


def gated(y, gate):
    """y silu(gate), for whose gradient y and the gate are kept on a CPU, and not the SiLU."""
    alike = y.shape == gate.shape and y.dtype == gate.dtype
    known = y.ndim == 3 and all(isinstance(n, int) for n in y.shape)
    if jax.default_backend() != "cpu" or not alike or not known or y.size <= TOGETHER:
        return _plain(y, gate)
    return _gated(y, gate)


def _plain(y, gate):
    return y * jax.nn.silu(gate)


@jax.custom_vjp
def _gated(y, gate):
    return _plain(y, gate)


def _forward(y, gate):
    segments = _segments(y)

    def segment(carry, i, parts):
        return carry, [_plain(*parts, *segments.read([gate], i))], None

    return segments.replace(segment, None, [y])[1][0], (y, gate)


def _backward(residuals, upstream):
    y, gate = residuals
    segments = _segments(y)

    def segment(carry, i, parts):
        return carry, _slopes(*parts, *segments.read([y], i)), None

    return tuple(segments.replace(segment, None, [upstream, gate])[1])


def _segments(y):
    return Segments(y.shape[1], max(1, TOGETHER // (y.shape[0] * y.shape[2])))


def _slopes(upstream, gate, y):
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    return upstream * silu, upstream * y * (share + silu * (1 - share))


_gated.defvjp(_forward, _backward)
