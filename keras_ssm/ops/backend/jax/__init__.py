"""JAX forms of the primitives that differ between backends."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from keras_ssm.ops.backend import xla
from keras_ssm.ops.backend.jax import tree as jax_tree
from keras_ssm.ops.backend.jax.blocks import map_blocks as map_blocks
from keras_ssm.ops.backend.jax.numbers import einsum, matmul
from keras_ssm.ops.backend.xla import carry_states as carry_in_place

# Steps of a recurrence that are written out one after another.
LONGEST_UNROLLED = 0  # `lax.scan` compiles once

# Steps from which blocks side by side are faster than one loop.
SHORTEST_IN_BLOCKS = 128


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32 or bfloat16 passes."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)


def concrete(x):
    """The value of x as a NumPy array, or `None` while tracing."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def sequential(advance, carry, samples, reverse=False):
    """Runs `advance(carry, sample) -> (carry, output)` over the first axis of `samples`."""
    return lax.scan(advance, carry, samples, reverse=reverse)


def written_out(advance, state, steps, reverse=False):
    """The states `(..., steps, size)` of `advance(state, t) -> state`, loop unrolled."""
    states = []
    for t in reversed(range(steps)) if reverse else range(steps):
        state = advance(state, t)
        states.append(state)
    return jnp.stack(states[::-1] if reverse else states, axis=-2)


def with_gradient(forward, backward):
    """A function of tensors with its own gradient.

    `forward(*tensors)` returns `(outputs, kept)`, and `backward(kept, cotangents)` the gradient
    of each tensor.
    """
    function = jax.custom_vjp(lambda *tensors: forward(*tensors)[0])
    function.defvjp(forward, lambda kept, cotangents: tuple(backward(kept, cotangents)))
    return function


def compiled(function, steps):
    """The function itself: whoever calls compiles the whole."""
    return function


def project(x, matrix):
    """The product of rows `(batch, length, features)` and a matrix.

    On a CPU the gradient of the matrix is summed row by row of the batch, the smaller side first:
    XLA would transpose the larger one as a whole.
    """
    return _project(x, matrix) if blocks_pay() and x.ndim == 3 else matmul(x, matrix)


@jax.custom_vjp
def _project(x, matrix):
    return matmul(x, matrix)


def _gradient_of_project(kept, upstream):
    x, matrix = kept
    small, large = (x, upstream) if x.shape[-1] <= upstream.shape[-1] else (upstream, x)
    slope = jnp.sum(einsum("blm,bln->bmn", small, large), axis=0)
    return matmul(upstream, matrix.T), slope if small is x else slope.T


_project.defvjp(lambda x, matrix: (_project(x, matrix), (x, matrix)), _gradient_of_project)


def contiguous(x):
    """x, since this backend copies where it has to."""
    return x


def blocks_pay():
    """Whether blocks that fit the caches of a CPU are faster than all features at once."""
    return jax.default_backend() == "cpu"


def carry_states(transition, inputs, initial, reverse):
    """`ops.carry` without its gradient: a loop on a CPU, a tree elsewhere; `None` if dense."""
    if not blocks_pay() and len(transition.shape) == 2 and inputs.shape[2] is not None:
        return jax_tree.states_before(transition, inputs, initial, reverse)
    return carry_in_place(transition, inputs, initial, reverse)


def fast_states(dA, inputs, initial, reverse):
    """The states of `ops.scan` without its gradient, on accelerators; `None` on a CPU."""
    if blocks_pay() or not isinstance(inputs.shape[-2], int):
        return None
    return jax_tree.states_after(dA, inputs, initial, reverse)


def fused_scan(dA, inputs, initial, reverse, portable):
    """The states of `ops.scan` by loops.

    `None` for changing transitions, short sequences and accelerators, which have `fast_states`.
    """
    steps = inputs.shape[-2]
    if not blocks_pay():
        return None
    if dA.shape[-2] != 1 or steps is None or steps < SHORTEST_IN_BLOCKS:
        return None

    def evaluate(dA, inputs, initial):
        states, kept = xla.scan_states(dA, inputs, initial, reverse)
        return states, (dA, kept, initial)

    gradient = lambda kept, upstream: xla.scan_gradients(*kept, upstream, reverse)  # noqa: E731
    return with_gradient(evaluate, gradient)(dA, inputs, initial)


def fused_chunks(u, T, matrices, initial, return_state, portable):
    """The outputs of `ops.chunked` in one function: none on JAX."""
    return None
