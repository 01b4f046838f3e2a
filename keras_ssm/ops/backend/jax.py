"""JAX forms of the primitives that differ between backends."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32 or bfloat16 passes."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)


def concrete(x):
    """The value of x as a NumPy array, or `None` while tracing."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def sequential(advance, carry, samples):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    return lax.scan(advance, carry, samples)


def diagonal_scan(dA, inputs, initial, reverse=False):
    """`ops.scan.forward` as one `lax.scan`."""
    modes = dA.shape[-1] // 2
    re, im = dA[..., :modes], dA[..., modes:]

    def advance(state, s):
        x, y = state[..., :modes], state[..., modes:]
        state = jnp.concatenate([re * x - im * y, re * y + im * x], axis=-1) + s
        return state, state

    steps = jnp.moveaxis(inputs, -2, 0)
    _, states = lax.scan(advance, initial, steps, reverse=reverse)
    return jnp.moveaxis(states, 0, -2)
