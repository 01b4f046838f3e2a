"""The recurrence of a diagonal system as one Pallas kernel. Not measured on a GPU."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams

from keras_ssm.ops import pair
from keras_ssm.ops.backend.kernel_shapes import padded

# Steps in a block that is scanned at once, and modes side by side.
BLOCK_STEPS = 64
BLOCK_MODES = 16


def _after(a, s, state):
    moved = pair.multiply(a, state)
    return moved[0] + s[0], moved[1] + s[1]


def _halves(x):
    """The even and the odd rows of `(n, modes)`."""
    n, modes = x.shape
    even, odd = jnp.split(x.reshape(n // 2, 2, modes), 2, axis=1)
    return even.reshape(n // 2, modes), odd.reshape(n // 2, modes)


def _merge(even, odd):
    """Undoes `_halves`."""
    n, modes = even.shape
    return jnp.transpose(jnp.stack([even, odd], axis=-1), (0, 2, 1)).reshape(2 * n, modes)


def _states_before(a, s, state, reverse):
    """The state before each step of a block, and after all of them.

    Neighbouring steps become one, until a single one is left; on the way back, each pair gives
    the state between its two. Work in proportion to the steps, and nothing is divided.
    """
    if s[0].shape[0] == 1:
        return state, _after(a, s, state)
    order = slice(None, None, -1) if reverse else slice(None)
    a_first, a_second = list(zip(*map(_halves, a), strict=True))[order]
    s_first, s_second = list(zip(*map(_halves, s), strict=True))[order]
    both = pair.multiply(a_second, a_first), _after(a_second, s_second, s_first)
    before, state = _states_before(*both, state, reverse)
    between = _after(a_first, s_first, before)
    parts = (between, before) if reverse else (before, between)
    return tuple(map(_merge, *parts)), state


def _scan_kernel(dA, inputs, initial, out, last, *, steps, block, varies, reverse, adjoint):
    """One row and tile of modes.

    With `adjoint`, `inputs` is the gradient of the states, `reverse` the way of the adjoint, and
    the state of the recurrence the gradient of the state before a step.
    """
    blocks = inputs.shape[0] // block

    def load(ref, at):
        return ref[at, 0, :], ref[at, 1, :]

    def one_block(i, state):
        i = blocks - 1 - i if reverse else i
        at = pl.ds(i * block, block)
        # Steps beyond the end keep the state: their transition is one.
        valid = (i * block + jnp.arange(block) < steps)[:, None]
        a, s = load(dA, at if varies else pl.ds(0, 1)), load(inputs, at)
        a = jnp.where(valid, a[0], 1.0), jnp.where(valid, a[1], 0.0)
        if adjoint:
            a = pair.conjugate(a)
            s, upstream = pair.multiply(a, s), s
        before, state = _states_before(a, s, state, reverse)
        if adjoint:
            result = upstream[0] + before[0], upstream[1] + before[1]
        else:
            result = _after(a, s, before)
        out[at, 0, :] = result[0]
        out[at, 1, :] = result[1]
        return state

    first = initial[0, :][None, :], initial[1, :][None, :]
    state = lax.fori_loop(0, blocks, one_block, first)
    last[0, :] = state[0].reshape(-1)
    last[1, :] = state[1].reshape(-1)


def _run(dA, inputs, initial, reverse, interpret, adjoint=False):
    """The states (or adjoints) of all steps, and what is left after them."""
    *lead, steps, size = inputs.shape
    rows, modes, varies = math.prod(lead), size // 2, dA.shape[-2] != 1
    block, tile = min(padded(steps), BLOCK_STEPS), min(padded(modes, 1), BLOCK_MODES)

    def arrange(x, n, multiple):
        """`(rows, n, 2, modes)`, with zeros up to a multiple and up to whole tiles."""
        x = x.reshape(-1, n, 2, modes)
        return jnp.pad(x, [(0, 0), (0, -n % multiple), (0, 0), (0, -modes % tile)])

    own = (1,) * (len(lead) - len(dA.shape) + 2) + dA.shape[:-2]

    def dA_row(row):
        """The row of dA, whose leading axes are broadcast, that a row of the inputs uses."""
        found, stride, own_stride = 0, 1, 1
        for n, mine in zip(reversed(lead), reversed(own), strict=True):
            if mine != 1:
                found += row // stride % n * own_stride
            stride, own_stride = stride * n, own_stride * mine
        return found

    dA = arrange(dA, dA.shape[-2], block if varies else 1)
    u, start = arrange(inputs, steps, block), arrange(initial, 1, 1)[:, 0]
    sequence = pl.BlockSpec((None, u.shape[1], 2, tile), lambda r, n: (r, 0, 0, n))
    state = pl.BlockSpec((None, 2, tile), lambda r, n: (r, 0, n))
    out, last = pl.pallas_call(
        partial(
            _scan_kernel,
            steps=steps,
            block=block,
            varies=varies,
            reverse=reverse,
            adjoint=adjoint,
        ),
        grid=(rows, u.shape[-1] // tile),
        in_specs=[
            pl.BlockSpec((None, dA.shape[1], 2, tile), lambda r, n: (dA_row(r), 0, 0, n)),
            sequence,
            state,
        ],
        out_specs=[sequence, state],
        out_shape=[
            jax.ShapeDtypeStruct(u.shape, u.dtype),
            jax.ShapeDtypeStruct(start.shape, u.dtype),
        ],
        compiler_params=CompilerParams(num_warps=4),
        interpret=interpret,
    )(dA, u, start)
    return out[:, :steps, :, :modes].reshape(inputs.shape), last[..., :modes].reshape(initial.shape)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def diagonal_scan(dA, inputs, initial, reverse, interpret):
    """`pallas_kernels.diagonal_scan` of checked arguments."""
    return _run(dA, inputs, initial, reverse, interpret)[0]


def _forward(dA, inputs, initial, reverse, interpret):
    states = _run(dA, inputs, initial, reverse, interpret)[0]
    return states, (dA, initial, states)


def _backward(reverse, interpret, saved, upstream):
    """The same kernel with the conjugate, the other way; XLA fuses the rest."""
    dA, initial, states = saved
    zero = jnp.zeros_like(initial)
    d_inputs, d_initial = _run(dA, upstream, zero, not reverse, interpret, adjoint=True)
    edge = initial[..., None, :]
    parts = [states[..., 1:, :], edge] if reverse else [edge, states[..., :-1, :]]
    previous = pair.conjugate(pair.split(jnp.concatenate(parts, axis=-2)))
    d_dA = pair.join(pair.multiply(previous, pair.split(d_inputs)))
    own = (1,) * (d_dA.ndim - dA.ndim) + dA.shape
    axes = tuple(i for i, n in enumerate(own) if n == 1)
    return jnp.sum(d_dA, axis=axes, keepdims=True).reshape(dA.shape), d_inputs, d_initial


diagonal_scan.defvjp(_forward, _backward)
