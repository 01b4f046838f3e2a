"""A function of one block of features after another, which a CPU's caches hold."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

# Parts of a block that XLA may run side by side: most operations are too small to be shared among
# threads. A block that makes its own matrices has the smallest operations, so it has more parts.
PARTS, MOST_PARTS, FEWEST_ROWS = 2, 4, 4


def map_blocks(function, tensors, fixed, size, **static):
    """The outputs of `function(slices, fixed slices, **static)`, written one below the other.

    The gradient computes each block anew: nothing but the tensors is kept for it.

    See `backend.default` for the arguments. What is `fixed` saves the function work: from `None`
    it computes it of the tensors itself.
    """
    block_function = functools.partial(function, **static)

    @jax.custom_vjp
    def mapped(tensors, fixed):
        return _each(block_function, size, tensors, fixed)

    def backward(residuals, cotangents):
        tensors, fixed = residuals
        return slopes(tensors, fixed, cotangents), jax.tree.map(jnp.zeros_like, fixed)

    def slope(tensors, fixed, cotangents):
        return jax.vjp(lambda tensors: block_function(tensors, fixed), tensors)[1](cotangents)[0]

    @jax.custom_vjp
    def slopes(tensors, fixed, cotangents):
        return _each(slope, size, tensors, fixed, cotangents)

    def backward_of_slopes(residuals, upstream):
        # Second derivatives are rare: they take all rows at once. The fixed tensors are left out,
        # since they would hide derivatives.
        tensors, fixed, cotangents = residuals

        def whole(tensors, cotangents):
            return slope(tensors, None, cotangents)

        d_tensors, d_cotangents = jax.vjp(whole, tensors, cotangents)[1](upstream)
        return d_tensors, jax.tree.map(jnp.zeros_like, fixed), d_cotangents

    mapped.defvjp(lambda *operands: (mapped(*operands), operands), backward)
    slopes.defvjp(lambda *operands: (slopes(*operands), operands), backward_of_slopes)
    return mapped(tensors, fixed)


def _each(function, size, *nests):
    """The outputs of `function(*slices of the nests)`, block by block.

    The nests are `tensors` and `fixed` of `map_blocks`, and whatever else.
    They are written into place: `lax.map` would stack them, another copy.
    """
    count = jax.tree.leaves(nests[0])[0].shape[0]
    many = nests[1] is not None and size >= MOST_PARTS * FEWEST_ROWS
    parts = math.gcd(size, MOST_PARTS if many else PARTS)
    part = size // parts

    def rows(at):
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, at, part), nests)

    shapes = jax.eval_shape(lambda: function(*rows(0)))
    results = jax.tree.map(lambda x: jnp.zeros((count, *x.shape[1:]), x.dtype), shapes)

    def put(result, output, at):
        return lax.dynamic_update_slice_in_dim(result, output, at, 0)

    def block(i, results):
        starts = [i * size + j * part for j in range(parts)]
        for at, outputs in [(at, function(*rows(at))) for at in starts]:
            results = jax.tree.map(functools.partial(put, at=at), results, outputs)
        return results

    return lax.fori_loop(0, count // size, block, results)
