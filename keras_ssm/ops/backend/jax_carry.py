"""The recurrence over chunks as a loop that reads and writes in place."""

import jax.numpy as jnp
from jax import lax


def carry_states(transition, inputs, initial, reverse):
    """`ops.carry` of diagonal systems without its gradient; `None` for dense ones.

    `lax.scan` would transpose what goes in and out. Real and imaginary parts are arrays of their
    own: no number asks which of them it is. Dense systems gain nothing.
    """
    if transition.ndim == 3:
        return None
    halves = lambda x: tuple(jnp.split(x, 2, axis=-1))  # noqa: E731
    chunks, (a_re, a_im) = inputs.shape[2], halves(transition[:, None])

    def one(i, loop):
        (re, im), before = loop
        m = chunks - 1 - i if reverse else i
        before = tuple(
            lax.dynamic_update_index_in_dim(kept, part, m, 2)
            for kept, part in zip(before, (re, im), strict=True)
        )
        s_re, s_im = halves(lax.dynamic_index_in_dim(inputs, m, 2, keepdims=False))
        return (a_re * re - a_im * im + s_re, a_re * im + a_im * re + s_im), before

    before = tuple(jnp.zeros_like(x) for x in halves(inputs))
    state, before = lax.fori_loop(0, chunks, one, (halves(initial), before))
    return jnp.concatenate(before, axis=-1), jnp.concatenate(state, axis=-1)
