"""Outputs and last states of diagonal banks by the Pallas kernels, and their gradients.

A bank falls into planes, one for each direction, channel and group of modes, which are walked one
after another and added up. All functions take log a `(features, modes)`, C
`(channels, features, modes)` and dB `(features, modes)` or `None`, each a pair of real and
imaginary parts, D `(channels, features)` and the initial state `(batch, features, 2 modes)`, or
`None`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from keras_ssm.ops.backend.jax.pallas import matrices as small
from keras_ssm.ops.backend.jax.pallas.calls import Walk
from keras_ssm.ops.backend.walk_plan import MOST_MODES


@functools.partial(jax.jit, static_argnames="bidirectional")
def outputs(u, log_dA, C, dB, D, initial, bidirectional=False):
    """Outputs `(batch, length, channels * features)` in the dtype of u."""
    directions = 2 if bidirectional else 1
    channels = C[0].shape[0] // directions
    y = (*u.shape[:2], channels * u.shape[2]), u.dtype
    for group in _groups(log_dA[0].shape[1]):
        log_a, C_all, b, x0 = _of_group(group, log_dA, C, dB, initial)
        walk = Walk(u, log_a)
        for direction in range(directions):
            start, way, first = None, 1 - 2 * direction, direction == group.start == 0
            for c in range(channels):
                row = C_all[direction * channels + c]
                skip = D[c] if first and D is not None else None
                matrices = walk.matrices(row, b, skip, normal=initial is None)
                if start is None:
                    start, _ = walk.starts(u, matrices, way, initial=x0)
                channel = c, channels
                y = walk.outputs(u, y, start, matrices, way, direction, channel, add=not first)
    return y


@functools.partial(jax.jit, static_argnames="bidirectional")
def slopes(tensors, dy, bidirectional=False):
    """The gradients of all arguments of `outputs`, as a tuple of the same structure."""
    u, log_dA, C, dB, D, initial = tensors
    directions = 2 if bidirectional else 1
    channels = C[0].shape[0] // directions
    du, parts, d_x0s, d_D = None, [], [], [0.0] * channels
    for group in _groups(log_dA[0].shape[1]):
        log_a, C_all, b, x0 = _of_group(group, log_dA, C, dB, initial)
        walk = Walk(u, log_a, "back")
        d_log_a, d_b, d_C, d_x0 = (0.0, 0.0), (0.0, 0.0), [], 0.0
        for at in range(directions * channels):
            direction, c = divmod(at, channels)
            first, way, row = direction == group.start == 0, 2 * direction - 1, C_all[at]
            matrices = walk.matrices(row, b, D[c] if first and D is not None else None, True)
            channel, options = (c, channels), {"moment": True, "ends": True}
            start, last = walk.starts(
                dy, matrices, way, direction, channel, last=x0 is not None, **options
            )
            du, sums = walk.slopes(u, dy, du, start, matrices, way, direction, channel)
            of_plane = small.gathered(walk.plan, log_a, row, b, *sums)
            if first:
                d_D[c] = of_plane[3]
            d_log_a, d_b = _plus(d_log_a, of_plane[0]), _plus(d_b, of_plane[2])
            d_row = of_plane[1]
            if x0 is not None:
                change, d_row_more, d_log_a_more = _of_initial(walk, last, row, x0)
                d_x0 = d_x0 + change
                d_row, d_log_a = _plus(d_row, d_row_more), _plus(d_log_a, d_log_a_more)
            d_C.append(d_row)
        d_C = [jnp.stack(part) for part in zip(*d_C, strict=True)]
        parts.append([*d_log_a, *d_C, *d_b])
        d_x0s.append(d_x0)
    re, im, C_re, C_im, dB_re, dB_im = (
        jnp.concatenate(part, -1) for part in zip(*parts, strict=True)
    )
    d_dB = None if dB is None else (dB_re, dB_im)
    d_D = None if D is None else jnp.stack(d_D)
    d_initial = None if initial is None else _joined(jnp.concatenate(d_x0s, -1))
    return du, (re, im), (C_re, C_im), d_dB, d_D, d_initial


@jax.jit
def last_state(u, log_dA, dB, initial, lengths):
    """The state after each row's last step, `(batch, features, 2 modes)`.

    `lengths` are the steps of each row, floats `(batch,)`, or `None`.
    """
    (added,) = _sums(u, log_dA, lengths, moment=False)
    state = added if dB is None else lax.complex(*dB) * added
    if initial is not None:
        state = state + small.power(log_dA, _steps(u, lengths)) * _complex(initial)
    return _joined(state)


@jax.jit
def slopes_of_last_state(tensors, d_state):
    """The gradients of all arguments of `last_state`."""
    u, log_dA, dB, initial, lengths = tensors
    upstream, n = _complex(d_state), _steps(u, lengths)
    added, moment = _sums(u, log_dA, lengths, moment=True)
    b = 1.0 if dB is None else lax.complex(*dB)
    grown, d_initial = b * moment, None
    if initial is not None:
        a_n = small.power(log_dA, n)
        grown = grown + n * a_n * _complex(initial)
        d_initial = _joined(jnp.conj(a_n) * upstream)
    d_log_dA = _halves(jnp.sum(jnp.conj(grown) * upstream, axis=0))
    d_dB = None if dB is None else _halves(jnp.sum(jnp.conj(added) * upstream, axis=0))
    du = _free(u, log_dA, jnp.conj(upstream) * b, lengths)
    no_slope = None if lengths is None else jnp.zeros_like(lengths)
    return du, d_log_dA, d_dB, d_initial, no_slope


def _sums(u, log_dA, lengths, moment):
    """Complex sums over t of a^(n - 1 - t) u[t], n the steps of a row; and times n - 1 - t."""
    sums = []
    for group in _groups(log_dA[0].shape[1]):
        walk = Walk(u, _parts(log_dA, group), "back" if moment else "forward")
        one = jnp.ones(walk.log_dA[0].shape, "complex64")
        matrices = walk.matrices(one, one, None, True)
        steps = None if lengths is None else lengths.astype("int32")
        options = {"lengths": steps, "moment": moment, "ends": True, "last": True}
        _, last = walk.starts(u, matrices, 1, **options)
        sums.append(small.unfilled(walk.plan, last))
    return [jnp.concatenate(parts, -1) for parts in zip(*sums, strict=True)]


def _free(u, log_dA, state, lengths):
    """Re(a^(n - 1 - t) x), for the state x at the end of a row of n steps, like u."""
    y = nothing = jnp.zeros_like(u)
    steps = None if lengths is None else lengths.astype("int32")
    for group in _groups(log_dA[0].shape[1]):
        walk = Walk(u, _parts(log_dA, group))
        half = jnp.full(walk.log_dA[0].shape, 0.5, "complex64")
        matrices = walk.matrices(half, jnp.ones_like(half), None, False, first=0)
        start, _ = walk.starts(None, matrices, -1, initial=state[..., group])
        y = walk.outputs(nothing, y, start, matrices, -1, lengths=steps, add=True)
    return y


def _of_initial(walk, last, C, initial):
    """The gradient of an initial state, and its part in those of C and log a.

    Its outputs are 2 Re(C a^(t + 1) x); the walk back ends with the sums of a^t dy and t a^t dy.
    """
    a = small.power(walk.log_dA, 1.0)
    lam, om = small.unfilled(walk.plan, last)
    lam, om = a * lam, a * (om + lam)
    d_C, d_log_a = jnp.sum(initial * lam, axis=0), jnp.sum(C * initial * om, axis=0)
    return 2.0 * jnp.conj(C * lam), small.slope(d_C), small.slope(d_log_a)


def _groups(modes):
    """Slices of the modes."""
    return [slice(first, min(first + MOST_MODES, modes)) for first in range(0, modes, MOST_MODES)]


def _of_group(group, log_dA, C, dB, initial):
    """Of some modes log a as a pair; C, dB and the initial state as complex arrays."""
    log_a, C = _parts(log_dA, group), lax.complex(*_parts(C, group))
    one = jnp.ones(log_a[0].shape, "complex64")
    b = one if dB is None else lax.complex(*_parts(dB, group))
    return log_a, C, b, None if initial is None else _complex(initial)[..., group]


def _parts(pair, group):
    return tuple(part[..., group] for part in pair)


def _plus(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _complex(x):
    return lax.complex(*jnp.split(x, 2, axis=-1))


def _halves(x):
    return x.real, x.imag


def _joined(x):
    return jnp.concatenate([x.real, x.imag], axis=-1)


def _steps(u, lengths):
    """The steps of each row, that broadcast against states."""
    if lengths is None:
        return float(u.shape[1])
    return lengths[:, None, None]
