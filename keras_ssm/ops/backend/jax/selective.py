"""The selective scan on a CPU with JAX: some steps at a time, with a gradient of its own.

A loop over the steps does nothing but h = g h + v. What goes in and out is computed for all steps
of a segment at once: a step by itself is too small for a kernel of XLA. Features lie beside each
other in memory. Segments are read from the tensors as they are and written into place. The gradient
computes the step sizes and states of a segment anew.
"""

import jax
import jax.numpy as jnp
from jax import lax

from keras_ssm.ops.backend.jax.numbers import einsum, exact_einsum
from keras_ssm.ops.backend.jax.segments import Segments

# Steps of a segment, whose states fit the caches; measured.
STEPS = 32


def selective_outputs(x, dt, A, B, C, D, initial, projection=()):
    """Outputs and last state of `ops.selective_scan`, or of `ops.projected_scan`.

    Args:
        x, dt: tensors `(batch, length, features)`, of a known length.
        A: tensor `(features, state_dim)`.
        B, C: tensors `(batch, length, state_dim)`.
        D: tensor `(features,)` or `None`.
        initial: tensor `(batch, features, state_dim)` or `None` (zero).
        projection: nothing, or of `ops.projected_scan` the kernel `(rank, features)`, bias
            `(features,)` and mask `(batch, length)` or `None`. What is called dt is then `low`,
            `(batch, length, rank)`.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, features, state_dim)`.
    """
    start = jnp.zeros_like(x[:, 0, None] * A.T) if initial is None else initial.mT
    y, last = _scan(x, dt, A.T, B, C, D, start, *(projection or (None, None, None)))
    return y, last.mT


@jax.custom_vjp
def _scan(*tensors):
    return _forward(*tensors)[0]


def _forward(x, given, A, B, C, D, start, kernel, bias, mask):
    segments = Segments(x.shape[1], STEPS)

    def segment(state, i, parts):
        new = segments.new(parts[0], i)
        X, low, b, c = _steps_first([new, *segments.read([given, B, C], i)])
        dt = _step_sizes(low, kernel, bias, _moving(segments, mask, i))
        _, after = _states(state, X, dt, A, b)
        part = exact_einsum("tbnd,tbn->tbd", after, c)
        part = part if D is None else part + X * D
        return after[-1], _steps_first([part]), state

    last, (y,), starts = segments.replace(segment, start, [x])
    return (y, last), (x, given, A, B, C, D, kernel, bias, mask, starts)


def _backward(residuals, cotangents):
    """The adjoint recurrence l_t = C_t dy_t + exp(dt_(t+1) A) l_(t+1), from the last segment.

    Gradients take the place of what has been read: of x that of y.
    """
    x, given, A, B, C, D, kernel, bias, mask, starts = residuals
    d_y, d_last = cotangents
    segments = Segments(x.shape[1], STEPS)

    def segment(carry, i, parts):
        later, sums = carry
        parts = [*segments.read([x], i), segments.new(parts[0], i), *parts[1:]]
        X, upstream, low, b, c = _steps_first(parts)
        dt = _step_sizes(low, kernel, bias, _moving(segments, mask, i))
        start = starts[i]
        gains, after = _states(start, X, dt, A, b)
        before = jnp.concatenate([start[None], after[:-1]])

        def step(later, sample):
            gain, read = sample
            adjoint = later + read
            return gain * adjoint, adjoint

        read = upstream[:, :, None] * c[..., None]
        earlier, adjoints = lax.scan(step, later, (gains, read), reverse=True)
        through = gains * adjoints * before  # the gradient of dt A
        d_driven = exact_einsum("tbnd,tbn->tbd", adjoints, b)
        d_x = d_driven * dt
        d_given = d_driven * X + exact_einsum("tbnd,nd->tbd", through, A)
        of_sums = {"A": exact_einsum("tbnd,tbd->nd", through, dt)}
        if D is not None:
            d_x = d_x + upstream * D
            of_sums["D"] = exact_einsum("tbd,tbd->d", upstream, X)
        if kernel is not None:
            # The slope of softplus is 1 - exp(-softplus): 0 where nothing moves.
            d_raw = d_given * -jnp.expm1(-dt)
            d_given = einsum("tbd,rd->tbr", d_raw, kernel)
            of_sums["kernel"] = einsum("tbr,tbd->rd", low, d_raw)
            of_sums["bias"] = jnp.sum(d_raw, axis=(0, 1))
        slopes = (
            d_x,
            d_given,
            exact_einsum("tbnd,tbd->tbn", adjoints, dt * X),
            exact_einsum("tbnd,tbd->tbn", after, upstream),
        )
        return (earlier, jax.tree.map(jnp.add, sums, of_sums)), _steps_first(slopes), None

    sums = {"A": A, "D": D, "kernel": kernel, "bias": bias}
    sums = {name: jnp.zeros_like(z) for name, z in sums.items() if z is not None}
    carry, tensors = (d_last, sums), [d_y, given, B, C]
    (d_start, sums), slopes, _ = segments.replace(segment, carry, tensors, reverse=True)
    d_x, d_given, d_B, d_C = slopes
    weights = sums.get("kernel"), sums.get("bias"), None
    return d_x, d_given, sums["A"], d_B, d_C, sums.get("D"), d_start, *weights


_scan.defvjp(_forward, _backward)


def _steps_first(parts):
    """Parts with the batch and the steps exchanged."""
    return [jnp.swapaxes(part, 0, 1) for part in parts]


def _moving(segments, mask, i):
    """Where the state moves, or `None` for everywhere."""
    new = segments.are_new(i)[:, None] if segments.overlap else None
    if mask is None:
        return new
    (seen,) = _steps_first(segments.read([mask[..., None]], i))
    return seen if new is None else seen & new


def _step_sizes(given, kernel, bias, moving):
    """The step sizes: given, or softplus(low kernel + bias); 0 where nothing moves."""
    if kernel is not None:
        given = jax.nn.softplus(einsum("tbr,rd->tbd", given, kernel) + bias)
    return given if moving is None else jnp.where(moving, given, 0)


def _states(state, x, dt, A, B):
    """exp(dt A) of each step, and the state after each: `(steps, batch, state_dim, features)`."""
    gains = jnp.exp(dt[:, :, None] * A)

    def step(h, sample):
        gain, driven = sample
        h = gain * h + driven
        return h, h

    return gains, lax.scan(step, state, (gains, (dt * x)[:, :, None] * B[..., None]))[1]
