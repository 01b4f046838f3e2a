"""The recurrence over chunks as a loop that reads and writes in place."""

import jax.numpy as jnp
from jax import lax


def carry_states(transition, inputs, initial, reverse):
    """`ops.carry` without its gradient: `lax.scan` would transpose what goes in and out.

    Real and imaginary parts are arrays of their own: no number asks which of them it is.
    """
    dense = transition.ndim == 3
    halves = (lambda x: (x,)) if dense else (lambda x: jnp.split(x, 2, axis=-1))
    chunks = inputs.shape[2]
    a = None if dense else halves(transition[:, None])

    def advance(state, added):
        if dense:
            (x,), (s,) = state, added
            moved = jnp.einsum("hij,hbj->hbi", transition, x, precision=lax.Precision.HIGHEST)
            return (x + (moved + s),)
        (re, im), (s_re, s_im) = state, added
        return a[0] * re - a[1] * im + s_re, a[0] * im + a[1] * re + s_im

    def one(i, loop):
        state, before = loop
        m = chunks - 1 - i if reverse else i
        before = tuple(
            lax.dynamic_update_index_in_dim(kept, part, m, 2)
            for kept, part in zip(before, state, strict=True)
        )
        added = halves(lax.dynamic_index_in_dim(inputs, m, 2, keepdims=False))
        return advance(state, added), before

    state = tuple(halves(initial))
    before = tuple(jnp.zeros(x.shape, x.dtype) for x in halves(inputs))
    state, before = lax.fori_loop(0, chunks, one, (state, before))
    return jnp.concatenate(before, axis=-1), jnp.concatenate(state, axis=-1)
