"""Diagonal recurrences on accelerators with JAX: in about log2(steps) operations on whole arrays.

A loop over steps or blocks is a kernel or more for each of them there, and most of its time goes
into starting them. Pairs of steps are one step of a recurrence of half the length, recursively.
Where the transition is the same in every step that takes no array of transitions, unlike
`lax.associative_scan`, which serves where it changes.
"""

import jax.numpy as jnp
from jax import lax


def states_after(dA, inputs, initial, reverse):
    """The states of `ops.scan`, without its gradient.

    Args:
        dA: array `(..., steps or 1, 2 modes)`.
        inputs: array `(..., steps, 2 modes)`.
        initial: array `(..., 2 modes)`.
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Array `(..., steps, 2 modes)`.
    """
    x, a = _complex(inputs), _complex(dA)
    edge = -1 if reverse else 0
    x = x.at[..., edge, :].add(a[..., edge, :] * _complex(initial))
    if a.shape[-2] == 1:
        return _real(_same(a, x, reverse))
    a = jnp.broadcast_to(a, x.shape)
    return _real(lax.associative_scan(_after, (a, x), reverse=reverse, axis=x.ndim - 2)[1])


def _same(a, x, reverse):
    """The states after each step, from inputs `(..., steps, modes)` and a `(..., 1, modes)`."""
    steps = x.shape[-2]
    if steps == 1:
        return x
    # In the order of the recurrence, each odd step follows an even step.
    spare = (steps % 2) if reverse else 0
    whole = x[..., spare : spare + steps // 2 * 2, :]
    pairs = whole.reshape(*x.shape[:-2], steps // 2, 2, x.shape[-1])
    sooner, later = (1, 0) if reverse else (0, 1)
    ends = _same(a * a, a * pairs[..., sooner, :] + pairs[..., later, :], reverse)
    if reverse:
        before = jnp.concatenate([ends[..., 1:, :], jnp.zeros_like(ends[..., :1, :])], axis=-2)
    else:
        before = jnp.concatenate([jnp.zeros_like(ends[..., :1, :]), ends[..., :-1, :]], axis=-2)
    middle = a * before + pairs[..., sooner, :]
    halves = [ends, middle] if reverse else [middle, ends]
    states = jnp.stack(halves, axis=-2).reshape(whole.shape)
    if steps % 2 == 0:
        return states
    edge = 0 if reverse else -1
    last = a[..., 0, :] * states[..., edge, :] + x[..., edge, :]
    parts = [last[..., None, :], states] if reverse else [states, last[..., None, :]]
    return jnp.concatenate(parts, axis=-2)


def _after(sooner, later):
    return sooner[0] * later[0], later[0] * sooner[1] + later[1]


def _complex(x):
    return lax.complex(*jnp.split(x, 2, axis=-1))


def _real(x):
    return jnp.concatenate([x.real, x.imag], axis=-1)
