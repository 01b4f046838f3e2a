"""The recurrence of Mamba-2 on a CPU with JAX: some chunks at a time, with a gradient of its own.

A chunk has a matrix of T x T for every head. Only those of a few chunks exist at a time, in memory
that a loop uses again. Segments are read from the tensors as they are and written into place. What
is kept for the gradient are the outputs and the states before the segments.

The states of the heads of a group lie side by side, `(state_dim, heads * head_dim)`, so that one
product reads or writes them all: XLA's are slow where a matrix has a few rows or columns.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from keras_ssm.ops.backend.in_place.segments import Segments
from keras_ssm.ops.backend.jax.numbers import einsum, exact_einsum

# Steps in a chunk: the more states, the more a chunk costs beside its steps. And numbers in the
# inputs of a segment. Measured.
CHUNK_SIZES = 32, 64
TOGETHER = 2**17

# Numbers of x from which segments pay. On two cores they were slower with 2^19, where all chunks at
# once use both cores better, and faster with 2^21.
FEWEST = 2**20


def dual_outputs(x, dt, A, B, C, initial, chunk_size):
    """Outputs and last state of `ops.ssd` without its skip.

    Args:
        x: tensor `(batch, length, heads, head_dim)`, of a known length.
        dt: tensor `(batch, length, heads)`.
        A: tensor `(heads,)`.
        B, C: tensors `(batch, length, groups, state_dim)`.
        initial: tensor `(batch, heads, head_dim, state_dim)` or `None` (zero).
        chunk_size: int or `None`: as many as states, within `CHUNK_SIZES`.

    Returns:
        Tuple `(y, last)` of tensors of the shapes of `x` and `initial`; `None` for a small `x`.
    """
    if x.size < FEWEST:
        return None
    batch, length, heads, head_dim = x.shape
    groups, state_dim = B.shape[2:]
    fewest, most = CHUNK_SIZES
    T = min(chunk_size or min(max(state_dim, fewest), most), length)
    rest = -length % T

    def joined(z):
        z = jnp.pad(z, [(0, 0), (0, rest)] + [(0, 0)] * (z.ndim - 2))
        return z.reshape(batch, length + rest, -1)

    x, dt, B, C = map(joined, (x, dt, B, C))
    sums = jnp.cumsum((dt * A).reshape(batch, -1, T, heads), axis=2).reshape(dt.shape)
    if initial is None:
        initial = jnp.zeros((batch, heads, head_dim, state_dim), x.dtype)
    start = initial.reshape(batch, groups, -1, state_dim).mT
    sizes = T, groups, heads // groups, head_dim
    y, last = _dual(sizes, x, dt, sums, B, C, start)
    last = last.mT.reshape(batch, heads, head_dim, state_dim)
    return y[:, :length].reshape(batch, length, heads, head_dim), last


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dual(sizes, *tensors):
    return _forward(sizes, *tensors)[0]


def _forward(sizes, x, dt, sums, B, C, start):
    segments = _segments(sizes, x)

    def segment(state, i, parts):
        parts = [*parts, *segments.read([dt, sums, B, C], i)]
        chunks = _Chunks(sizes, *_new(segments, i, parts))
        states = chunks.states(state)
        return states[:, -1], [chunks.outputs(states)], state

    last, (y,), starts = segments.replace(segment, start, [x])
    return (y, last), (x, dt, sums, B, C, y, starts)


def _backward(sizes, residuals, cotangents):
    """The adjoint states pass from the last segment to the first.

    Gradients take the place of what has been read: of x that of y.
    """
    x, dt, sums, B, C, y, starts = residuals
    d_y, d_last = cotangents
    segments = _segments(sizes, x)

    def segment(later, i, parts):
        x_part, y_part = segments.read([x, y], i)
        chunks = _Chunks(sizes, *_new(segments, i, [x_part, *parts[1:]]))
        d_y = segments.new(parts[0], i)
        return (*chunks.gradients(chunks.states(starts[i]), later, d_y, y_part), None)

    tensors = [d_y, dt, sums, B, C]
    d_start, slopes, _ = segments.replace(segment, d_last, tensors, reverse=True)
    return (*slopes, d_start)


_dual.defvjp(_forward, _backward)


def _segments(sizes, x):
    T = sizes[0]
    chunks = max(1, TOGETHER // (x.shape[0] * x.shape[2] * T))
    return Segments(x.shape[1], chunks * T)


def _new(segments, i, parts):
    """Parts of x, dt, its sums, B and C; a chunk that is not new leaves the state as it is."""
    return [*(segments.new(z, i) for z in parts[:3]), *parts[3:]]


class _Chunks:
    """The chunks of a segment.

    Tensors by step are `(batch, chunks, groups, T, heads of a group, head_dim)`, tensors by head
    `(batch, chunks, groups, heads of a group, T, head_dim)`.
    """

    def __init__(self, sizes, x, dt, sums, B, C):
        self.T, self.groups, self.heads, self.head_dim = sizes
        self.x, self.dt, self.sums = self.split(x), self.cut(dt), self.cut(sums)
        self.B, self.C = self.cut(B), self.cut(C)
        total = self.sums[..., -1:, :]
        self.from_start, self.to_end = jnp.exp(self.sums), jnp.exp(total - self.sums)
        self.gains = jnp.repeat(jnp.exp(total), self.head_dim, axis=-1)
        self.written = _side_by_side(self.x * (self.to_end * self.dt)[..., None])

    def cut(self, z):
        """`(batch, steps, size)` to `(batch, chunks, groups, T, size of a group)`."""
        z = z.reshape(z.shape[0], -1, self.T, self.groups, z.shape[2] // self.groups)
        return jnp.swapaxes(z, 2, 3)

    def split(self, z):
        """`(batch, steps, size)` by step."""
        return self.apart(self.cut(z))

    def apart(self, z):
        """With an axis for the heads of a group."""
        return z.reshape(*z.shape[:-1], self.heads, self.head_dim)

    def put(self, z):
        """Undoes `cut`, or `split`."""
        return jnp.swapaxes(z, 2, 3).reshape(z.shape[0], z.shape[1] * self.T, -1)

    def states(self, first):
        """The states before each chunk and after the last."""
        added = exact_einsum("bcgtn,bcgtw->bcgnw", self.B, self.written)
        states = [first]
        for i in range(added.shape[1]):
            states.append(self.gains[:, i] * states[-1] + added[:, i])
        return jnp.stack(states, axis=1)

    def outputs(self, states):
        """y of the steps, from the states before the chunks."""
        within = einsum("bcghtj,bcghjp->bcghtp", self.scores() * self.decays(), self.driven())
        read = self.apart(exact_einsum("bcgtn,bcgnw->bcgtw", self.C, states[:, :-1]))
        return self.put(_exchanged(within) + read * self.from_start[..., None])

    def gradients(self, states, later, d_y, y):
        """The adjoint of the first state, and the gradients of x, dt, sums, B and C.

        They are those of `ops.ssd`; `later` is the adjoint of the last state.
        """
        d_y, y = self.split(d_y), self.split(y)
        upstream, decays = _exchanged(d_y), self.decays()
        d_within = einsum("bcghtj,bcghtp->bcghjp", self.scores() * decays, upstream)
        d_scores = einsum("bcghtp,bcghjp->bcghtj", upstream, self.driven())
        d_scores = exact_einsum("bcghtj,bcghtj->bcgtj", d_scores, decays)

        read = _side_by_side(d_y * self.from_start[..., None])
        adjoints = self.adjoints(exact_einsum("bcgtn,bcgtw->bcgnw", self.C, read), later)
        after = adjoints[:, 1:]
        d_C = einsum("bcgtj,bcgjn->bcgtn", d_scores, self.B)
        d_C = d_C + exact_einsum("bcgtw,bcgnw->bcgtn", read, states[:, :-1])
        d_B = einsum("bcgtj,bcgtn->bcgjn", d_scores, self.C)
        d_B = d_B + exact_einsum("bcgtw,bcgnw->bcgtn", self.written, after)

        d_driven = self.apart(exact_einsum("bcgtn,bcgnw->bcgtw", self.B, after))
        d_driven = d_driven * self.to_end[..., None] + _exchanged(d_within)
        d_dt = jnp.sum(d_driven * self.x, axis=-1)
        d_sums = jnp.sum(d_y * y, axis=-1) - d_dt * self.dt
        met = self.apart(after), self.apart(states[:, 1:])
        d_sums = d_sums.at[..., -1, :].add(exact_einsum("bcgnhp,bcgnhp->bcgh", *met))
        slopes = d_driven * self.dt[..., None], d_dt, d_sums, d_B, d_C
        return adjoints[:, 0], [*map(self.put, slopes)]

    def adjoints(self, read, last):
        """The adjoints of the states before each chunk and after the last."""
        adjoints = [last]
        for i in reversed(range(read.shape[1])):
            adjoints.append(self.gains[:, i] * adjoints[-1] + read[:, i])
        return jnp.stack(adjoints[::-1], axis=1)

    def driven(self):
        """dt x by head."""
        return _exchanged(self.x * self.dt[..., None])

    def scores(self):
        """C_t B_j of each group, to be broadcast over its heads."""
        return einsum("bcgtn,bcgjn->bcgtj", self.C, self.B)[:, :, :, None]

    def decays(self):
        """exp(s_t - s_j) of each head for j <= t, else 0."""
        sums = jnp.swapaxes(self.sums, 3, 4)
        difference = sums[..., :, None] - sums[..., None, :]
        return jnp.exp(jnp.where(np.tri(self.T, dtype=bool), difference, -jnp.inf))


def _exchanged(z):
    """By head in place of by step, or the other way round."""
    return jnp.swapaxes(z, 3, 4)


def _side_by_side(z):
    """Tensors by step with the heads of a group in one axis."""
    return z.reshape(*z.shape[:4], -1)
