"""A diagonal bank walked over a sequence that stays where it is: the two kernels that go forwards.

One program takes some features and 16 rows, which are segments of sequences side by side. It walks
them in chunks of T steps, with the states in registers, and a warp for each part of the modes of
a feature (a lane, below):

    y = x R + state E        R = Toeplitz(K)   E[n, i] = 2 g a^(i + 1)
    state' = a^T state + x F                   F[j, n] = a^j, for inputs in reversed order

Positions p are counted along the walk, whatever its way; what reaches beyond the sequence is zero.
All arrays are flat. The kernels of PyTorch, in `torch/triton`, are the same.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax import bank
from keras_ssm.ops.backend.jax.pallas.products import (
    for_parts,
    halves,
    of_parts,
    plus_product,
    turned,
)
from keras_ssm.ops.backend.walk_plan import ROWS, T


@dataclasses.dataclass(frozen=True)
class Tile:
    """The part of a kernel that a program does, and how the walk goes.

    Args:
        plan: `Plan`.
        kernel: string. A kernel of `TILES`.
        way: 1 or -1. Whether the walk goes forwards or backwards.
        lag: int. How much later an input counts.
        ends: bool. Whether the segments end where the sequences do, and not begin there.
    """

    plan: object
    kernel: str
    way: int
    lag: int = 0
    ends: bool = False

    def __post_init__(self):
        size, parts, features = self.plan.tile(self.kernel)
        object.__setattr__(self, "NM", size)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "BH", features)

    @property
    def grid(self):
        return self.plan.width // self.BH, -(-self.plan.rows // ROWS)

    @property
    def warps(self):
        return self.BH * self.parts

    def features(self):
        return pl.program_id(0) * self.BH + jnp.arange(self.BH)

    def lanes(self):
        """`(features * parts, 1, 1)`."""
        count = self.BH * self.parts
        return (pl.program_id(0) * count + jnp.arange(count))[:, None, None]

    def rows(self):
        return pl.program_id(1) * ROWS + jnp.arange(ROWS)

    def first_positions(self, lengths=None):
        """The position where each row begins, `(rows, 1)`, and the steps of its sequence."""
        plan, r = self.plan, self.rows()
        segment = lax.rem(r, jnp.full_like(r, plan.G))[:, None]
        steps, origin = plan.length, 0
        if lengths is not None:
            b = lax.div(r, jnp.full_like(r, plan.G))
            steps = plgpu.load(lengths.at[b], mask=r < plan.rows, other=0)[:, None]
        if self.ends:
            origin = steps - plan.G * plan.S
        return origin + segment * plan.S, steps

    def inside(self):
        """Whether a row and a feature exist, `(rows, 1, features)`."""
        plan = self.plan
        rows, features = self.rows() < plan.rows, self.features() < plan.features
        return rows[:, None, None] & features[None, None, :]

    def rows_inside(self):
        return (self.rows() < self.plan.rows)[None, :, None]

    def place(self, p, steps, channel, channels):
        """Where positions p are in a flat sequence of so many channels, `(rows, T, features)`."""
        plan = self.plan
        r = self.rows()
        b = lax.div(r, jnp.full_like(r, plan.G))
        t = p if self.way > 0 else steps - 1 - p
        at = (b[:, None] * plan.length + t) * (channels * plan.features)
        return at[:, :, None] + (channel * plan.features + self.features())[None, None, :]

    def stride(self, channels):
        """From one chunk to the next."""
        return self.way * T * channels * self.plan.features

    def in_state(self, number, count):
        """Where state `number` of `count` parts lies, `(features * parts, rows, modes)`."""
        n = jnp.arange(self.NM)
        own = self.plan.size
        lane = self.lanes() * (self.NM // own) + (n // own)[None, None, :]
        row = self.rows()[None, :, None] * self.plan.lanes + lane
        return (row * count + number) * own + (n % own)[None, None, :]

    def matrix(self, F, number, rows_first=True):
        """Both halves of the real (0) or imaginary part (1) of F or E of each lane."""
        n, j, own = jnp.arange(self.NM), jnp.arange(T), self.plan.size
        if not rows_first:
            at = self.lanes() * (2 * own * T) + n[None, :, None] * T + j[None, None, :]
            return halves(plgpu.load(F.at[at + number * own * T]))
        lane = self.lanes() * (self.NM // own) + (n // own)[None, None, :]
        at = lane * (2 * T * own) + j[None, :, None] * own + (n % own)[None, None, :]
        return halves(plgpu.load(F.at[at + number * T * own]))

    def power(self, A, number):
        """a^T of each mode."""
        n, own = jnp.arange(self.NM), self.plan.size
        lane = self.lanes() * (self.NM // own) + (n // own)[None, None, :]
        return plgpu.load(A.at[(lane * 2 + number) * own + (n % own)[None, None, :]])

    def response(self, K):
        """Both halves of R: entry k of a reversed chunk reaches entry i after i + k - T + 1."""
        f, j = self.lanes(), jnp.arange(T)
        lag = j[None, :, None] + j[None, None, :] - (T - 1)
        at = lax.div(f, jnp.full_like(f, self.parts)) * T + lag
        used = (lag >= 0) & (lax.rem(f, jnp.full_like(f, self.parts)) == 0)
        return halves(plgpu.load(K.at[at], mask=used, other=0.0))

    def zeros(self, rows, columns):
        return jnp.zeros((self.BH * self.parts, rows, columns), jnp.float32)

    def levelled(self, chunk, R):
        """Zeros, in the layout of a product.

        A sum takes the layout of the product in it, so numbers are moved before they are halved.
        """
        return 0.0 * plus_product(self.zeros(ROWS, T), for_parts(chunk, self.parts), R, False)


def reversed_steps():
    """The steps of a chunk in the order in which inputs are read."""
    return (T - 1 - jnp.arange(T))[None, :]


def valid(p, steps, inside):
    return ((p >= 0) & (p < steps))[:, :, None] & inside


def store(ref, at, values, mask):
    """A masked store; the interpreter would also write where the mask says no."""
    if bank.INTERPRETED:
        at = jnp.where(mask, at, 2**31 - 1)
    plgpu.store(ref.at[at], values, mask=mask)


def read(x, at, p, steps, inside):
    return plgpu.load(x.at[at], mask=valid(p, steps, inside), other=0.0).astype(jnp.float32)


def ends(*refs, tile, channel, channels, moment, by_row):
    """The state that each segment adds, from zero; with `moment` the second one as well.

    It takes more modes to a lane than `end`, F and A have.
    """
    x, F, A, *lengths, end = refs
    fr, fi = tile.matrix(F, 0), tile.matrix(F, 1)
    ar, ai = tile.power(A, 0), tile.power(A, 1)
    first, steps = tile.first_positions(lengths[0] if by_row else None)
    inside, parts, exact = tile.inside(), tile.parts, tile.plan.exact
    p = first + reversed_steps() - tile.lag
    at = tile.place(p, steps, channel, channels)
    zero = tile.zeros(ROWS, tile.NM)
    weights = jnp.arange(T).astype(jnp.float32)[None, None, :]

    def chunk(_, carry):
        p, at, inputs, states = carry
        v = for_parts(inputs, parts)
        p, at = p + T, at + tile.stride(channels)
        inputs = read(x, at, p, steps, inside)
        xr, xi, *moments = states
        if moment:
            wr, wi = moments
            wr, wi = turned(ar, ai, wr + T * xr, wi + T * xi)
            moments = [plus_product(wr, v * weights, fr, exact)]
            moments += [plus_product(wi, v * weights, fi, exact)]
        xr, xi = turned(ar, ai, xr, xi)
        states = [plus_product(xr, v, fr, exact), plus_product(xi, v, fi, exact), *moments]
        return p, at, inputs, states

    count = 4 if moment else 2
    carry = p, at, read(x, at, p, steps, inside), [zero] * count
    states = lax.fori_loop(0, tile.plan.S // T, chunk, carry)[3]
    for number, state in enumerate(states):
        store(end, tile.in_state(number, count), state, tile.rows_inside())


def outputs(*refs, tile, channel, channels, add, by_row):
    """The outputs, `lag` steps later, of segments of known start; with `add` added to the old."""
    x, start, F, E, K, A, *others, y = refs
    fr, fi = tile.matrix(F, 0), tile.matrix(F, 1)
    reads = [tile.matrix(E, number, rows_first=False) for number in (0, 1)]
    R, ar, ai = tile.response(K), tile.power(A, 0), tile.power(A, 1)
    first, steps = tile.first_positions(others[-1] if by_row else None)
    inside, parts, exact = tile.inside(), tile.parts, tile.plan.exact
    q, p = first + jnp.arange(T)[None, :] + tile.lag, first + reversed_steps()
    at, to = tile.place(p, steps, 0, 1), tile.place(q, steps, channel, channels)
    states = [
        plgpu.load(start.at[tile.in_state(number, 2)], mask=tile.rows_inside(), other=0.0)
        for number in (0, 1)
    ]
    inputs = read(x, at, p, steps, inside)
    level = tile.levelled(inputs, R)

    def chunk(_, carry):
        p, at, q, to, inputs, (xr, xi) = carry
        v = for_parts(inputs, parts) + level
        p, at = p + T, at + tile.stride(1)
        inputs = read(x, at, p, steps, inside)
        out = plus_product(tile.zeros(ROWS, T), v, R, exact)
        out = plus_product(out, xr, reads[0], exact)
        result = of_parts(plus_product(out, xi, reads[1], exact), parts)
        written = valid(q, steps, inside)
        if add:
            result += plgpu.load(others[0].at[to], mask=written, other=0.0).astype(jnp.float32)
        store(y, to, result.astype(y.dtype), written)
        xr, xi = turned(ar, ai, xr, xi)
        states = plus_product(xr, v, fr, exact), plus_product(xi, v, fi, exact)
        return p, at, q + T, to + tile.stride(channels), inputs, states

    lax.fori_loop(0, tile.plan.S // T, chunk, (p, at, q, to, inputs, tuple(states)))
