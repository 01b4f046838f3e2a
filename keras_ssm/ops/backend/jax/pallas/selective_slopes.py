"""The gradients of a selective scan: states made anew, and adjoints the other way."""

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.jax.pallas.selective import (
    LOG2_E,
    Program,
    by_name,
    plus_product,
    power_of_two,
)
from keras_ssm.ops.backend.jax.pallas.walk import store


def slopes(*refs, plan, names):
    """All gradients: of A and D for each program, of B and C for each block of features.

    A block of steps has its states made anew from the one that was kept. Those before every T
    steps go through `scratch`, and those between stay in registers.
    """
    given, (dx, d_raw, dA, dB, dC, dD, d_initial, scratch) = by_name(refs, names)
    program = Program(plan, given)
    a, skip = program.rates(), program.of_features(given.get("D"))
    blocks = plan.S // (plan.T * plan.every)
    x, dy, B, C = (given[name] for name in ("x", "dy", "B", "C"))
    first = program.g * plan.S
    of_part = pl.program_id(0) * (plan.batch * plan.length * plan.states)

    def forward(state, t):
        size, by_raw = program.size(t)
        sample, w = program.sample(x, t), program.weights(B, t)
        gain = power_of_two(size[None, :] * a)
        after = plus_product(w * (size * sample)[None, :], gain, state)
        return after, (state, gain, w, size, by_raw, sample)

    def make(start):
        def chunk(c, state):
            program.keep(scratch, program.row * plan.every + c, state)
            for i in range(plan.T):
                state, _ = forward(state, start + c * plan.T + i)
            return state

        return chunk

    def back(start):
        def chunk(c, carry):
            adjoint, slope, d_skip = carry
            c = plan.every - 1 - c
            after = program.state(scratch, program.row * plan.every + c)
            steps = []
            for i in range(plan.T):
                after, step = forward(after, start + c * plan.T + i)
                steps.append(step)
            for i in reversed(range(plan.T)):
                t = start + c * plan.T + i
                state, gain, w, size, by_raw, sample = steps[i]
                d = program.sample(dy, t)
                adjoint = plus_product(adjoint, program.weights(C, t), d[None, :])
                at, inside = program.in_weights(t)
                store(dC, of_part + at, jnp.sum(after * d[None, :], axis=1), inside)
                store(dB, of_part + at, jnp.sum(adjoint * (size * sample)[None, :], axis=1), inside)
                d_driven = jnp.sum(adjoint * w, axis=0)
                adjoint = gain * adjoint
                through = adjoint * state  # the gradient of dt A
                slope = plus_product(slope, through, size[None, :])
                d_size = d_driven * sample + jnp.sum(through * a, axis=0) / LOG2_E
                program.write(dx, t, d_driven * size + skip * d)
                program.write(d_raw, t, d_size * by_raw)
                d_skip += sample * d
                after = state
            return adjoint, slope, d_skip

        return chunk

    def block(k, carry):
        i = blocks - 1 - k
        state = program.state(given["kept"], program.row * blocks + i)
        start = first + i * (plan.T * plan.every)
        _barrier()
        lax.fori_loop(0, plan.every, make(start), state)
        _barrier()
        return lax.fori_loop(0, plan.every, back(start), carry)

    carry = program.state(given["later"], program.row), program.state(None, 0), 0.0 * skip
    adjoint, slope, d_skip = lax.fori_loop(0, blocks, block, carry)
    program.keep(dA, program.row, slope)
    store(dD, program.row * plan.features + program.h, d_skip, program.in_h)
    program.keep(d_initial, program.b, adjoint, program.g == 0)


def _barrier():
    """What a thread of a program has written, the others read."""
    if not bank.INTERPRETED:
        plgpu.debug_barrier()
