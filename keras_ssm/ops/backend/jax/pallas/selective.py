"""The selective scan of Mamba as Pallas kernels: some features a program, states in its registers.

    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t        y_t = h_t C_t + D x_t

Features lie beside each other in memory, and states over them, `(..., state_dim, features)`. All
arrays are flat. Where programs would not fill a card, sequences are cut into segments that run side
by side: their ends from zero, then the states before them, then all steps. The kernels of PyTorch,
in `torch/triton`, are the same.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.jax.pallas.walk import store

LOG2_E = 1.4426950408889634


class Program:
    """The part of a kernel that a program does: some features of a segment of a sequence.

    Args:
        plan: `ScanPlan`.
        given: dict of what a kernel reads by name: A, raw step sizes, perhaps a bias and a mask.
    """

    def __init__(self, plan, given):
        self.plan = plan
        self.A, self.raw, self.mask = given["A"], given["raw"], given.get("mask")
        self.row = pl.program_id(1)
        G = jnp.full_like(self.row, plan.G)  # a number alone has 64 bits where JAX has them
        self.b, self.g = lax.div(self.row, G), lax.rem(self.row, G)
        self.h = pl.program_id(0) * plan.block + jnp.arange(plan.block)
        self.n = jnp.arange(plan.NM)
        self.in_h, self.in_n = self.h < plan.features, self.n < plan.states
        self.here = self.in_n[:, None] & self.in_h[None, :]
        self.bias = self.of_features(given["bias"]) if "bias" in given else None

    def rates(self):
        """A in powers of two, `(state_dim, features)`."""
        at = self.h[None, :] * self.plan.states + self.n[:, None]
        return LOG2_E * plgpu.load(self.A.at[at], mask=self.here, other=0.0)

    def of_features(self, x, number=0):
        """Row `number` of `(rows, features)`, or zeros without an array."""
        if x is None:
            return jnp.zeros(self.plan.block, jnp.float32)
        at = number * self.plan.features + self.h
        return plgpu.load(x.at[at], mask=self.in_h, other=0.0)

    def state(self, x, number):
        """State `number` of an array of them, or zeros without an array."""
        if x is None:
            return jnp.zeros((self.plan.NM, self.plan.block), jnp.float32)
        return plgpu.load(x.at[self._in_state(number)], mask=self.here, other=0.0)

    def keep(self, x, number, state, where=True):
        store(x, self._in_state(number), state, self.here & where)

    def _in_state(self, number):
        place = self.n[:, None] * self.plan.features + self.h[None, :]
        return number * (self.plan.states * self.plan.features) + place

    def sample(self, x, t):
        """Step t of a sequence, `(features,)`; 0 beyond the end."""
        at, inside = self._in_sequence(t)
        return plgpu.load(x.at[at], mask=inside, other=0.0).astype(jnp.float32)

    def write(self, x, t, sample):
        at, inside = self._in_sequence(t)
        store(x, at, sample.astype(x.dtype), inside)

    def _in_sequence(self, t):
        at = (self.b * self.plan.length + t) * self.plan.features + self.h
        return at, self.in_h & (t < self.plan.length)

    def weights(self, x, t):
        """B or C of one step, `(state_dim, 1)`."""
        at, inside = self.in_weights(t)
        return plgpu.load(x.at[at], mask=inside, other=0.0).astype(jnp.float32)[:, None]

    def in_weights(self, t):
        at = (self.b * self.plan.length + t) * self.plan.states + self.n
        return at, self.in_n & (t < self.plan.length)

    def size(self, t):
        """The size of step t and its slope by what it is made of; 0 beyond the end."""
        dt, (_, inside) = self.sample(self.raw, t), self._in_sequence(t)
        slope = jnp.ones_like(dt)
        if self.bias is not None:
            dt, slope = _softplus(dt + self.bias)
        if self.mask is not None:
            last = jnp.minimum(t, self.plan.length - 1)
            inside = inside & (self.mask[self.b * self.plan.length + last] != 0)
        return jnp.where(inside, dt, 0.0), jnp.where(inside, slope, 0.0)


def _softplus(z):
    """log(1 + e^z), and its slope."""
    small = jnp.exp(-jnp.abs(z))
    slope = jnp.where(z < 0.0, small, 1.0) / (1.0 + small)
    return jnp.maximum(z, 0.0) + jnp.log1p(small), slope


def power_of_two(x):
    """2^x by one instruction, where a library's would take care of numbers below 1e-38."""
    if bank.INTERPRETED:
        return jnp.exp2(x)
    return _instruction("ex2.approx.ftz.f32 $0, $1;", x)


def plus_product(total, a, b):
    """total + a b by one instruction, which XLA would not make of it."""
    total, a, b = jnp.broadcast_arrays(total, a, b)
    if bank.INTERPRETED:
        return total + a * b
    return _instruction("fma.rn.f32 $0, $1, $2, $3;", a, b, total)


def _instruction(text, *args):
    constraints = ",".join(["=f", *["f"] * len(args)])
    result = jax.ShapeDtypeStruct(args[0].shape, jnp.float32)
    options = {"constraints": constraints, "pack": 1, "result_shape_dtypes": [result]}
    return plgpu.elementwise_inline_asm(text, args=args, **options)[0]


def by_name(refs, names):
    """What a kernel reads, as a dict, and a list of what it writes."""
    count = len(names)
    return dict(zip(names, refs[:count], strict=True)), refs[count:]


def ends(*refs, plan, names, adjoint):
    """What each segment adds to the state, from zero, and the sum of its step sizes.

    With `adjoint` the walk goes back over the gradient of the outputs, and W is C and not B.
    """
    given, (end, total) = by_name(refs, names)
    x, W, program = given["x"], given["W"], Program(plan, given)
    a = program.rates()
    first = program.g * plan.S

    def chunk(c, carry):
        state, sum_dt = carry
        start = first + (plan.S - plan.T - c * plan.T if adjoint else c * plan.T)
        for k in range(plan.T):
            t = start + (plan.T - 1 - k if adjoint else k)
            (size, _), value = program.size(t), program.sample(x, t)
            sum_dt += size
            gain, w = power_of_two(size[None, :] * a), program.weights(W, t)
            if adjoint:
                state = gain * plus_product(state, w, value[None, :])
            else:
                state = plus_product(w * (size * value)[None, :], gain, state)
        return state, sum_dt

    carry = program.state(None, 0), program.of_features(None)
    state, sum_dt = lax.fori_loop(0, plan.S // plan.T, chunk, carry)
    program.keep(end, program.row, state)
    store(total, program.row * plan.features + program.h, sum_dt, program.in_h)


def outputs(*refs, plan, names, keep):
    """The outputs, the last state, and with `keep` the states before every few steps."""
    given, (y, last, *kept) = by_name(refs, names)
    program = Program(plan, given)
    a, skip = program.rates(), program.of_features(given.get("D"))
    blocks = plan.S // (plan.T * plan.every)

    def chunk(c, state):
        for i in range(plan.T):
            t = program.g * plan.S + c * plan.T + i
            (size, _), x = program.size(t), program.sample(given["x"], t)
            driven = program.weights(given["B"], t) * (size * x)[None, :]
            state = plus_product(driven, power_of_two(size[None, :] * a), state)
            out = jnp.sum(program.weights(given["C"], t) * state, axis=0) + skip * x
            program.write(y, t, out)
        return state

    def block(i, state):
        if keep:
            program.keep(kept[0], program.row * blocks + i, state)
        return lax.fori_loop(i * plan.every, (i + 1) * plan.every, chunk, state)

    state = lax.fori_loop(0, blocks, block, program.state(given.get("start"), program.row))
    # Sizes are 0 beyond the end, and the state stays.
    program.keep(last, program.b, state, program.g == plan.G - 1)
