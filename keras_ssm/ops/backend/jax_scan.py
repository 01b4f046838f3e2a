"""The scan of `ops.scan` on JAX: loops over blocks side by side, and a gradient in one of them."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from keras_ssm.ops import pair

# Steps from which blocks side by side are faster than one loop.
SHORTEST_IN_BLOCKS = 128


def scan(dA, inputs, initial, reverse):
    """The states of `ops.scan` for a transition that is the same in every step.

    Blocks are read twice: for the state that each adds, and with the right state before it. What
    a loop returns XLA computes once; what it can fuse, such as powers times the state before
    a block, it computes again for each array that is made of the states. Nothing is transposed.

    Args:
        dA: tensor `(..., 1, 2 modes)`.
        inputs: tensor `(..., steps, 2 modes)`.
        initial: tensor `(..., 2 modes)`.
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tensor `(..., steps, 2 modes)`.
    """
    return _scan(reverse, dA, inputs, initial)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(reverse, dA, inputs, initial):
    return _forward(reverse, dA, inputs, initial)[0]


def _forward(reverse, dA, inputs, initial):
    x = _in_blocks(inputs, reverse)
    before = _before_blocks(dA, x, initial, reverse)

    def one(t, x, state):
        state = pair.product(dA, state) + _at(x, t)
        return lax.dynamic_update_index_in_dim(x, state, t, -2), state

    x, _ = _over_block(one, x.shape[-2], reverse, x, before)
    return _joined(x, inputs.shape[-2], reverse), (dA, x, initial)


def _backward(reverse, kept, upstream):
    dA, states, initial = kept
    a = _conjugate(dA)
    x = _in_blocks(upstream, reverse)
    later = _before_blocks(a, x, jnp.zeros_like(initial), not reverse)

    def one(t, x, later, total):
        # The adjoint of the step after meets the state before it.
        total = total + _product_with_conjugate(_at(states, t), later)
        later = pair.product(a, later) + _at(x, t)
        return lax.dynamic_update_index_in_dim(x, later, t, -2), later, total

    totals = jnp.zeros_like(later)
    x, _, total = _over_block(one, x.shape[-2], not reverse, x, later, totals)
    d_inputs = _joined(x, upstream.shape[-2], reverse)
    first = d_inputs[..., -1 if reverse else 0, :]
    d_dA = jnp.sum(total, axis=-2) + _product_with_conjugate(initial, first)
    return _sum_to(d_dA[..., None, :], dA.shape), d_inputs, pair.product(a[..., 0, :], first)


_scan.defvjp(_forward, _backward)


def _before_blocks(a, x, initial, reverse):
    """The state before each block, `(..., blocks, 2 modes)`."""
    steps = x.shape[-2]

    def one(t, state):
        return (pair.product(a, state) + _at(x, t),)

    (ends,) = _over_block(one, steps, reverse, jnp.zeros_like(x[..., 0, :]))
    over_block = a[..., 0, :]
    for _ in range(steps.bit_length() - 1):
        over_block = pair.product(over_block, over_block)

    def follow(state, end):
        return pair.product(over_block, state) + end, state

    _, starts = lax.scan(follow, initial, jnp.moveaxis(ends, -2, 0), reverse=reverse)
    return jnp.moveaxis(starts, 0, -2)


def _over_block(one, steps, reverse, *carry):
    """Runs `carry = one(t, *carry)` over the steps of a block, in place."""
    at = lambda i: steps - 1 - i if reverse else i  # noqa: E731
    return lax.fori_loop(0, steps, lambda i, carry: one(at(i), *carry), carry)


def _at(x, t):
    return lax.dynamic_index_in_dim(x, t, -2, keepdims=False)


def _in_blocks(x, reverse):
    """`(..., steps, 2 modes)` to `(..., blocks, steps in a block, 2 modes)`, zeros at the end."""
    steps = x.shape[-2]
    # A quarter of the square root: measured, but half or twice as much is hardly slower.
    T = 2 ** (round(math.log2(steps) / 2) - 2)
    blocks = -(-steps // T)
    rest = blocks * T - steps
    padding = [(0, 0)] * (x.ndim - 2) + [(rest, 0) if reverse else (0, rest), (0, 0)]
    return jnp.pad(x, padding).reshape(*x.shape[:-2], blocks, T, x.shape[-1])


def _joined(x, steps, reverse):
    """Undoes `_in_blocks`."""
    x = x.reshape(*x.shape[:-3], -1, x.shape[-1])
    return x[..., x.shape[-2] - steps :, :] if reverse else x[..., :steps, :]


def _conjugate(x):
    return pair.join(pair.conjugate(pair.split(x)))


def _product_with_conjugate(a, b):
    """conj(a) b for two joined tensors, in the loops of `pair.product`."""
    re, im = (part[..., None, :] for part in pair.split(a))
    rows = b.reshape(*b.shape[:-1], 2, -1)
    sign = jnp.asarray([[1.0], [-1.0]], b.dtype)
    return (re * rows + im * sign * jnp.flip(rows, axis=-2)).reshape(b.shape)


def _sum_to(x, shape):
    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n == 1)
    return jnp.sum(x, axis=axes).reshape(shape)
