"""JAX forms of the primitives that differ between backends."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 0  # `lax.scan` compiles once


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32 or bfloat16 passes."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)


def concrete(x):
    """The value of x as a NumPy array, or `None` while tracing."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def sequential(advance, carry, samples):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    return lax.scan(advance, carry, samples)


def written_out(advance, state, steps):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, loop unrolled."""
    states = []
    for t in range(steps):
        state = advance(state, t)
        states.append(state)
    return jnp.stack(states, axis=-2)
