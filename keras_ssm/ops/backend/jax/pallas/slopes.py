"""The walk of `walk` the other way round, which gives all gradients of a bank."""

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from keras_ssm.ops.backend.jax.pallas.products import (
    folded,
    for_parts,
    halves,
    of_parts,
    plus_product,
    turned,
)
from keras_ssm.ops.backend.jax.pallas.walk import read, reversed_steps, store, valid
from keras_ssm.ops.backend.walk_plan import ROWS, T


def slopes(*refs, tile, channel, channels, add):
    """The way back: du, and of each program the sums over t that the gradients need.

    With lam[t] the sum over s >= t of a^(s - t) dy[s] and om[t] that of (s - t) a^(s - t) dy[s],
    both states of this walk, the gradients of g and log a need the sums over t of u lam and u om,
    and nothing that went forward. `part` `(programs, lanes, 4, NM)` gets these sums, as far as
    they come from before the chunk and but for a factor a; `lags` `(programs, features, T, T)` the
    products of u and dy within a chunk.
    """
    u, dy, start, F, E, K, A, *old, du, part, lags = refs
    plan, parts, exact = tile.plan, tile.parts, tile.plan.exact
    fr, fi = tile.matrix(F, 0), tile.matrix(F, 1)
    reads = [tile.matrix(E, number, rows_first=False) for number in (0, 1)]
    R, ar, ai = tile.response(K), tile.power(A, 0), tile.power(A, 1)
    first, length = tile.first_positions()
    inside = tile.inside()
    q, p = first + jnp.arange(T)[None, :], first + reversed_steps() - tile.lag
    at, at_u = tile.place(p, length, channel, channels), tile.place(q, length, 0, 1)
    states = [
        plgpu.load(start.at[tile.in_state(number, 4)], mask=tile.rows_inside(), other=0.0)
        for number in range(4)
    ]
    sums = [tile.zeros(ROWS // 2, tile.NM)] * 4
    ahead = read(dy, at, p, length, inside), read(u, at_u, q, length, inside)
    level = tile.levelled(ahead[0], R)
    nothing = tile.zeros(ROWS, tile.NM)
    steps = jnp.arange(T).astype(jnp.float32)[None, None, :]

    def chunk(_, carry):
        p, at, q, at_u, (next_dy, next_u), states, sums, within = carry
        (xr, xi, wr, wi), (pr, pi, sr, si) = states, sums
        d, v = for_parts(next_dy, parts) + level, for_parts(next_u, parts) + level
        v_turned = jnp.transpose(for_parts(next_u, parts), (0, 2, 1))
        written, to = valid(q, length, inside), at_u
        p, at, q, at_u = p + T, at + tile.stride(channels), q + T, at_u + tile.stride(1)
        ahead = read(dy, at, p, length, inside), read(u, at_u, q, length, inside)
        out = plus_product(tile.zeros(ROWS, T), d, R, exact)
        out = plus_product(out, xr, reads[0], exact)
        result = of_parts(plus_product(out, xi, reads[1], exact), parts)
        if add:
            result += plgpu.load(old[0].at[to], mask=written, other=0.0).astype(jnp.float32)
        store(du, to, result.astype(du.dtype), written)
        within = plus_product(within, v_turned, halves(d), exact)
        gr, gi = plus_product(nothing, v, fr, exact), plus_product(nothing, v, fi, exact)
        weighed = v * (steps + 1.0)
        kr, ki = (plus_product(nothing, weighed, f, exact) for f in (fr, fi))
        pr += folded(xr * gr - xi * gi)
        pi += folded(xr * gi + xi * gr)
        sr += folded(wr * gr - wi * gi + xr * kr - xi * ki)
        si += folded(wr * gi + wi * gr + xr * ki + xi * kr)
        wr, wi = turned(ar, ai, wr + T * xr, wi + T * xi)
        weighed = d * steps
        wr, wi = plus_product(wr, weighed, fr, exact), plus_product(wi, weighed, fi, exact)
        xr, xi = turned(ar, ai, xr, xi)
        xr, xi = plus_product(xr, d, fr, exact), plus_product(xi, d, fi, exact)
        return p, at, q, at_u, ahead, (xr, xi, wr, wi), (pr, pi, sr, si), within

    carry = p, at, q, at_u, ahead, tuple(states), tuple(sums), tile.zeros(T, T)
    *_, sums, within = lax.fori_loop(0, plan.S // T, chunk, carry)
    n, j = jnp.arange(tile.NM), jnp.arange(T)
    lane = tile.lanes()
    for number, total in enumerate(sums):
        row = (pl.program_id(1) * plan.lanes + lane[:, :, 0]) * 4 + number
        plgpu.store(part.at[row * tile.NM + n[None, :]], jnp.sum(total, axis=1))
    f = lax.div(lane, jnp.full_like(lane, parts))
    row = (pl.program_id(1) * plan.width + f) * T + j[None, :, None]
    first_part = lax.rem(lane, jnp.full_like(lane, parts)) == 0
    mask = jnp.broadcast_to(first_part, within.shape)
    store(lags, row * T + j[None, None, :], within, mask)
