"""The delta rule: states that are matrices, in chunks of batched matmuls."""

import functools

import numpy as np
from keras import ops

from keras_ssm.ops import backend, doubling
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.exporting import known
from keras_ssm.ops.lower_inverse import unit_lower_inverse
from keras_ssm.ops.ssd import chunks_of, decays

# Corrections in a chunk: as many as a key has features, within these bounds. The work within a
# chunk grows with their number, and that on the states with the number of the chunks.
CHUNK_SIZES = 16, 64


def delta_rule(q, k, v, beta, g=None, initial_state=None, chunk_size=None):
    """Corrects a matrix for each head towards v for the key k, and reads it by q.

    At each step S <- exp(g) S, then S <- S + beta k (v - k^T S) for each of its corrections in
    turn, and y = q^T S. A correction multiplies S by I - beta k k^T: for a key of norm 1 that is a
    projection at beta = 1, and a reflection at beta = 2.

    In a chunk the corrections solve a triangular system, whose inverse does not depend on the
    state; between chunks the states pass on. For the gradient only the inputs and the state before
    each chunk are kept.

    Args:
        q: tensor `(batch, length, heads, key_dim)`.
        k: tensor `(batch, length, corrections, heads, key_dim)`. Keys of norm 1 or 0; longer ones
            make the state grow.
        v: tensor `(batch, length, corrections, heads, value_dim)`.
        beta: tensor `(batch, length, corrections, heads)`, from 0 to 2. Where it is 0, and g is,
            the state stays.
        g: tensor `(batch, length, heads)`, at most 0, or `None` (0). Logarithm of the decay.
        initial_state: tensor `(batch, heads, key_dim, value_dim)` or `None` (zero).
        chunk_size: int or `None`: `key_dim`, but 16 to 64. Corrections in a chunk. Changes speed
            and memory only.

    Returns:
        Tuple `(y, state)`: `(batch, length, heads, value_dim)` and the last state.

    Example:
        ```python
        q, k = ops.ones((1, 3, 1, 1)), ops.ones((1, 3, 1, 1, 1))
        y, state = keras_ssm.ops.delta_rule(q, k, k, 0.5 * k[..., 0])  # 0.5, 0.75, 0.875
        ```

    Reference:
        [DeltaNet](https://arxiv.org/abs/2406.06484), section 3;
        [Gated DeltaNet](https://arxiv.org/abs/2412.06464), section 3.3;
        [DeltaProduct](https://arxiv.org/abs/2502.10297), section 3.
    """
    length, n, heads, value_dim = known(q.shape[1]), *v.shape[2:]
    fewest, most = CHUNK_SIZES
    T = max(1, (chunk_size or min(max(q.shape[-1], fewest), most)) // n)
    T = T if length is None else min(T, length)
    tensors = [_by_chunk(chunks_of(q, T, q.shape[2:]))]
    tensors += [_by_chunk(_in_turn(chunks_of(z, T, z.shape[2:]))) for z in (k, v, beta)]
    if g is not None:
        tensors.append(backend.cumsum(_by_chunk(chunks_of(g, T, (heads,))), axis=-1))
    start = initial_state
    if start is None:
        start = ops.zeros_like(tensors[1][0, :, :, 0, :, None] * tensors[2][0, :, :, 0, None])
    if doubling.needed(tensors[0].shape[0]):
        run = functools.partial(_without_loops, n)
    else:
        both = (_outputs, _gradients)
        if backend.loops_over_chunks():
            both = (_outputs_in_loop, _gradients_in_loop)
        run = backend.with_gradient(*(functools.partial(function, n) for function in both))
    y, last, *_ = run(*tensors, start)
    y = ops.transpose(y, (1, 0, 3, 2, 4))  # (batch, chunks, T, heads, value_dim)
    y = ops.reshape(y, (known(q.shape[0]) or ops.shape(q)[0], -1, heads, value_dim))
    return y[:, : length or ops.shape(q)[1]], last


def delta_step(q, k, v, beta, g, state):
    """`delta_rule` of one sample.

    Args:
        q: tensor `(batch, heads, key_dim)`.
        k: tensor `(batch, corrections, heads, key_dim)`.
        v: tensor `(batch, corrections, heads, value_dim)`.
        beta: tensor `(batch, corrections, heads)`.
        g: tensor `(batch, heads)` or `None`.
        state: tensor `(batch, heads, key_dim, value_dim)`.
    """
    state = state if g is None else ops.exp(g)[..., None, None] * state
    for j in range(k.shape[1]):
        key = k[:, j, :, :, None]
        error = v[:, j] - ops.sum(key * state, axis=2)
        state = state + key * (beta[:, j, :, None] * error)[:, :, None]
    return ops.sum(q[..., None] * state, axis=2), state


def _in_turn(z):
    """`(batch, chunks, T, corrections, ...)` with the corrections of all steps in one axis."""
    return ops.reshape(z, (*ops.shape(z)[:2], z.shape[2] * z.shape[3], *z.shape[4:]))


def _by_chunk(z):
    """`(batch, chunks, steps, heads, ...)` to `(chunks, batch, heads, steps, ...)`."""
    return ops.transpose(z, (1, 0, 3, 2, *range(4, len(z.shape))))


def _product(a, b):
    return exact_einsum("...ij,...jk->...ik", a, b)


def _product_t(a, b):
    """a b^T."""
    return exact_einsum("...ik,...jk->...ij", a, b)


def _t_product(a, b):
    """a^T b."""
    return exact_einsum("...ji,...jk->...ik", a, b)


def _rows(x, weights):
    """x with each row times its weight, if there are weights."""
    return x if weights is None else x * weights[..., None]


class _Chunks:
    """What chunks hold before a state is known: matrices, decays and their products.

    `scores` is tril(q k^T) and `overlaps` stril(k k^T), both times the decays between their steps.
    """

    def __init__(self, n, q, k, beta, sums):
        writes = k.shape[-2]
        constant = lambda x: ops.cast(ops.convert_to_tensor(x), q.dtype)
        if sums is None:
            between = constant(np.tri(writes))
            self.from_start = self.to_end = self.step_from_start = self.total = None
        else:
            wide = ops.repeat(sums, n, axis=-1) if n > 1 else sums
            between = decays(wide)
            last = sums[..., -1:]
            self.step_from_start = ops.exp(sums)
            self.from_start = ops.exp(wide)
            self.to_end = ops.exp(last - wide)
            self.total = ops.exp(last)[..., None]
        self.beta = beta
        self.before = between * constant(np.tri(writes, k=-1))
        # A step reads what its own corrections left.
        self.until = between if n == 1 else between[..., n - 1 :: n, :]
        self.scores = _product_t(q, k) * self.until
        self.overlaps = _product_t(k, k) * self.before
        self.inverse = unit_lower_inverse(_rows(self.overlaps, beta))
        self.read = _rows(k, self.from_start)
        self.asked = _rows(q, self.step_from_start)
        self.written = _rows(k, self.to_end)

    def decayed(self, state):
        """The state before the chunks, at their end."""
        return state if self.total is None else self.total * state

    def weights(self):
        """W of U = T beta V - W S, with the inverse T."""
        return _product(self.inverse, _rows(self.read, self.beta))


def _outputs(n, q, k, v, beta, *rest):
    """The outputs, the last state and those before the chunks, and what the gradient needs.

    The states before the chunks are outputs too, as second derivatives pass through them.
    """
    *sums, start = rest
    chunks = _Chunks(n, q, k, beta, *(sums or [None]))
    free = _product(chunks.inverse, _rows(v, beta))
    samples = [chunks.weights(), free, chunks.written]

    def step(state, sample):
        weights, free, written, *total = sample
        u = free - _product(weights, state)
        kept = total[0] * state if total else state
        return kept + _t_product(written, u), (state, u)

    samples += [] if chunks.total is None else [chunks.total]
    last, (before, u) = backend.sequential(step, start, tuple(samples))
    y = _product(chunks.asked, before) + _product(chunks.scores, u)
    return (y, last, before), (q, k, v, beta, *sums, before, y)


def _gradients(n, residuals, cotangents):
    """The adjoint states pass from the last chunk to the first.

    A decay multiplies what a step reads and divides what it writes. Summed up, the gradient of
    their logarithms' sums is d_y y - d_v v, and no matrix is summed for it.
    """
    q, k, v, beta, *sums, before, y = residuals
    d_y, d_last, d_before = cotangents
    chunks = _Chunks(n, q, k, beta, *(sums or [None]))
    seen = _product(chunks.read, before)
    u = _product(chunks.inverse, _rows(v - seen, beta))

    d_u = _t_product(chunks.scores, d_y)
    d_asked = _t_product(chunks.asked, d_y) + d_before
    samples = [chunks.weights(), d_u, chunks.written, d_asked]
    samples += [] if chunks.total is None else [chunks.total]

    def step(later, sample):
        weights, d_u, written, d_asked, *total = sample
        d_u = d_u + _product(written, later)
        kept = total[0] * later if total else later
        return kept + d_asked - _t_product(weights, d_u), (later, d_u)

    d_start, (later, d_u) = backend.sequential(step, d_last, tuple(samples), reverse=True)

    d_errors = _t_product(chunks.inverse, d_u)  # of beta (v - what the state held for k)
    errors = v - seen - _product(chunks.overlaps, u)
    d_beta = ops.sum(d_errors * errors, axis=-1)
    d_v = _rows(d_errors, beta)
    d_overlaps = -_product_t(d_v, u) * chunks.before
    d_scores = _product_t(d_y, u) * chunks.until
    d_q = _rows(_product_t(d_y, before), chunks.step_from_start) + _product(d_scores, k)
    d_k = _rows(_product_t(u, later), chunks.to_end)
    d_k = d_k - _rows(_product_t(d_v, before), chunks.from_start)
    d_k = d_k + _product(d_overlaps, k) + _t_product(d_overlaps, k) + _t_product(d_scores, q)
    gradients = [d_q, d_k, d_v, d_beta]
    if sums:
        by_step = ops.sum(d_v * v, axis=-1)
        if n > 1:
            by_step = ops.sum(ops.reshape(by_step, (*ops.shape(by_step)[:-1], -1, n)), axis=-1)
        d_sums = ops.sum(d_y * y, axis=-1) - by_step
        after = chunks.decayed(before) + _t_product(chunks.written, u)
        d_end = ops.sum(later * after, axis=(-2, -1))[..., None]
        at_end = [(0, 0)] * 3 + [(d_sums.shape[-1] - 1, 0)]
        gradients.append(d_sums + backend.pad(d_end, at_end))
    return (*gradients, d_start)


def _outputs_in_loop(n, *tensors):
    """`_outputs` of one chunk after another, whose matrices the caches of a CPU hold."""
    *samples, start = tensors

    def step(state, sample):
        y, last, before = _outputs(n, *(z[None] for z in sample), state)[0]
        return last, (y[0], before[0])

    last, (y, before) = backend.sequential(step, start, tuple(samples))
    return (y, last, before), (*samples, before, y)


def _gradients_in_loop(n, residuals, cotangents):
    """`_gradients` in the same way, from the last chunk to the first."""
    d_y, d_last, d_before = cotangents

    def step(later, sample):
        *residuals, d_y, d_before = (z[None] for z in sample)
        *gradients, earlier = _gradients(n, residuals, (d_y, later, d_before))
        return earlier, tuple(gradient[0] for gradient in gradients)

    samples = (*residuals, d_y, d_before)
    d_start, gradients = backend.sequential(step, d_last, samples, reverse=True)
    return (*gradients, d_start)


def _without_loops(n, q, k, v, beta, *rest):
    """`_outputs` for programs without loops: doublings over the chunks' transition matrices."""
    *sums, start = rest
    chunks = _Chunks(n, q, k, beta, *(sums or [None]))
    free = _product(chunks.inverse, _rows(v, beta))
    weights = chunks.weights()
    eye = ops.cast(ops.convert_to_tensor(np.eye(k.shape[-1])), k.dtype)
    moved = chunks.decayed(eye) - _t_product(chunks.written, weights)
    squared = lambda a, move: _product(a, move(a))
    states = doubling.states(
        moved, _t_product(chunks.written, free), start, _product, squared, 0, steps=q.shape[-2]
    )
    before = states[:-1]
    u = free - _product(weights, before)
    return _product(chunks.asked, before) + _product(chunks.scores, u), states[-1]
