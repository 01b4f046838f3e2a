"""The selective scan on a CPU with JAX: some steps at a time, with a gradient of its own.

A loop over the steps does nothing but h = g h + v. What goes in and out is computed for all steps
of a segment at once: a step by itself is too small for a kernel of XLA. Features lie beside each
other in memory. The gradient computes the states of a segment anew.
"""

import jax
import jax.numpy as jnp
from jax import lax

from keras_ssm.ops.backend.jax.numbers import exact_einsum

# Steps of a segment, whose states fit the caches; measured.
STEPS = 32


def selective_outputs(x, dt, A, B, C, D, initial):
    """Outputs and last state of `ops.selective_scan`.

    Args:
        x, dt: tensors `(batch, length, features)`, of a known length.
        A: tensor `(features, state_dim)`.
        B, C: tensors `(batch, length, state_dim)`.
        D: tensor `(features,)` or `None`.
        initial: tensor `(batch, features, state_dim)` or `None` (zero).

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, features, state_dim)`.
    """
    steps = min(STEPS, x.shape[1])
    start = jnp.zeros_like(x[:, 0, None] * A.T) if initial is None else initial.mT
    y, last = _scan(
        *(_segments(z, steps) for z in (x, dt)),
        A.T,
        _segments(B, steps),
        _segments(C, steps),
        start,
    )
    y = jnp.moveaxis(y, 2, 0).reshape(x.shape[0], -1, x.shape[2])[:, : x.shape[1]]
    return y if D is None else y + x * D, last.mT


def _segments(z, steps):
    """`(batch, length, size)` to `(segments, steps, batch, size)`, zeros at the end."""
    count = -(-z.shape[1] // steps)
    z = jnp.pad(z, ((0, 0), (0, count * steps - z.shape[1]), (0, 0)))
    return z.reshape(z.shape[0], count, steps, z.shape[2]).transpose(1, 2, 0, 3)


@jax.custom_vjp
def _scan(x, dt, A, B, C, start):
    return _forward(x, dt, A, B, C, start)[0]


def _forward(x, dt, A, B, C, start):
    def segment(state, samples):
        x, dt, B, C = samples
        _, after = _states(state, x, dt, A, B)
        return after[-1], (exact_einsum("tbnd,tbn->tbd", after, C), state)

    last, (y, starts) = lax.scan(segment, start, (x, dt, B, C))
    return (y, last), (x, dt, A, B, C, starts)


def _states(state, x, dt, A, B):
    """exp(dt A) of each step, and the state after each: `(steps, batch, state_dim, features)`."""
    gains = jnp.exp(dt[:, :, None] * A)

    def step(h, sample):
        gain, driven = sample
        h = gain * h + driven
        return h, h

    return gains, lax.scan(step, state, (gains, (dt * x)[:, :, None] * B[..., None]))[1]


def _backward(residuals, cotangents):
    """The adjoint recurrence l_t = C_t dy_t + exp(dt_(t+1) A) l_(t+1), from the last segment."""
    x, dt, A, B, C, starts = residuals
    d_y, d_last = cotangents

    def segment(carry, samples):
        later, d_A = carry
        x, dt, B, C, d_y, start = samples
        gains, after = _states(start, x, dt, A, B)
        before = jnp.concatenate([start[None], after[:-1]])

        def step(later, sample):
            gain, read = sample
            adjoint = later + read
            return gain * adjoint, adjoint

        read = d_y[:, :, None] * C[..., None]
        earlier, adjoints = lax.scan(step, later, (gains, read), reverse=True)
        through = gains * adjoints * before  # the gradient of dt A
        d_driven = exact_einsum("tbnd,tbn->tbd", adjoints, B)
        slopes = (
            d_driven * dt,
            d_driven * x + exact_einsum("tbnd,nd->tbd", through, A),
            exact_einsum("tbnd,tbd->tbn", adjoints, dt * x),
            exact_einsum("tbnd,tbd->tbn", after, d_y),
        )
        return (earlier, d_A + exact_einsum("tbnd,tbd->nd", through, dt)), slopes

    carry = d_last, jnp.zeros_like(A)
    (d_start, d_A), slopes = lax.scan(segment, carry, (x, dt, B, C, d_y, starts), reverse=True)
    d_x, d_dt, d_B, d_C = slopes
    return d_x, d_dt, d_A, d_B, d_C, d_start


_scan.defvjp(_forward, _backward)
