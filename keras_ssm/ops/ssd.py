"""State-space duality: the recurrence of Mamba-2 in chunks of batched matmuls."""

import functools

import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.exporting import known, longest, loops_allowed

# The work in a chunk grows with its length, the work between chunks with their number. Measured.
CHUNK_SIZE = 64


def ssd(x, dt, A, B, C, D=None, initial_state=None, chunk_size=None):
    """Applies S_t = exp(dt_t A) S_(t-1) + dt_t x_t B_t, y_t = S_t C_t + D x_t to each head.

    Within a chunk this is a masked product, (C_t B_j) exp(s_t - s_j) with the sums s of dt A;
    between chunks the states pass on. Every exponent is at most 0.

    Args:
        x: tensor `(batch, length, heads, head_dim)`. Inputs.
        dt: tensor `(batch, length, heads)`. Step sizes; where one is 0 the state stays.
        A: tensor `(heads,)`, negative.
        B, C: tensors `(batch, length, groups, state_dim)`. Consecutive heads share a group.
        D: tensor that broadcasts against `(heads, head_dim)`, or `None`. Skip.
        initial_state: tensor `(batch, heads, head_dim, state_dim)` or `None` (zero).
        chunk_size: int or `None` (64; on JAX, on a CPU, as many as states, but 32 to 64). Changes
            speed and memory only.

    Returns:
        Tuple `(y, state)`: `(batch, length, heads, head_dim)` and the last state.

    Example:
        ```python
        x, dt, one = ops.ones((1, 3, 1, 1)), ops.ones((1, 3, 1)), ops.ones((1, 3, 1, 1))
        y, state = keras_ssm.ops.ssd(x, dt, ops.log([0.5]), one, one)  # 1, 1.5, 1.75
        ```

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, equation 20 and listing 1.
    """
    T = chunk_size or CHUNK_SIZE
    T = T if known(x.shape[1]) is None else min(T, x.shape[1])
    in_chunks = functools.partial(_in_chunks, T)
    outputs = backend.fused_dual(x, dt, A, B, C, initial_state, chunk_size, in_chunks)
    y, state = in_chunks(x, dt, A, B, C, initial_state) if outputs is None else outputs
    return y if D is None else y + x * D, state


def _in_chunks(T, x, dt, A, B, C, initial_state):
    """`ssd` in operations that every backend has."""
    length, heads, head_dim = known(x.shape[1]), x.shape[2], x.shape[3]
    groups, state_dim = B.shape[2:]
    by_group = (groups, heads // groups)
    lead = known(x.shape[0]) or ops.shape(x)[0]
    driven = chunks_of(x * dt[..., None], T, (*by_group, head_dim))
    sums = backend.cumsum(chunks_of(dt * A, T, by_group), axis=2)
    B, C = (chunks_of(z, T, (groups, state_dim)) for z in (B, C))
    start = ops.zeros_like(driven[:, 0, 0, :, :, :, None] * B[:, 0, 0, :, None, None])
    if initial_state is not None:
        start = ops.reshape(initial_state, (-1, *start.shape[1:]))
    run = lambda *tensors: _outputs(*tensors)[0]
    if backend.compiles_gradients() and loops_allowed() and length is not None:
        run = backend.with_gradient(_outputs, _gradients)
    driven, sums = _by_head(driven, (0, 2, 3, 1, 4)), _by_head(sums, (0, 2, 3, 1))
    B, C = (_by_head(z, (0, 2, 1, 3)) for z in (B, C))
    y, last, _ = run(driven, sums, B, C, start)
    y = ops.transpose(y, (0, 3, 1, 2, 4))
    y = ops.reshape(y, (lead, -1, heads, head_dim))[:, : length or ops.shape(x)[1]]
    return y, ops.reshape(last, (-1, heads, head_dim, state_dim))


def _by_head(z, axes):
    """`(batch, chunks, T, groups, ...)` with the chunks of all rows in one axis, transposed.

    What is multiplied for each head lies together.
    """
    return ops.transpose(ops.reshape(z, (-1, *z.shape[2:])), axes)


def _outputs(driven, sums, B, C, start):
    """The outputs, the last state and those before the chunks, and what the gradient needs.

    The states before the chunks are outputs too, as second derivatives pass through them.
    """
    total = sums[..., -1]
    to_end = driven * ops.exp(total[..., None] - sums)[..., None]
    added = exact_einsum("sgrjp,sgjn->sgrpn", to_end, B)
    before, last = _passed(total, added, start)
    weights = backend.einsum("sgtn,sgjn->sgtj", C, B)[:, :, None] * decays(sums)
    read = exact_einsum("sgtn,sgrpn->sgrtp", C, before)
    y = backend.einsum("sgrtj,sgrjp->sgrtp", weights, driven) + read * ops.exp(sums)[..., None]
    return (y, last, before), (driven, sums, B, C, before, y)


def _passed(total, added, start, reverse=False):
    """`pass_states` of chunks that lie one behind the other in the first axis, in either order."""
    turned = lambda z: ops.flip(z, axis=1) if reverse else z
    lead = known(start.shape[0])
    of_rows = lambda z: ops.reshape(z, (lead or ops.shape(start)[0], -1, *z.shape[1:]))
    before, last = pass_states(turned(of_rows(total)), turned(of_rows(added)), start)
    return ops.reshape(turned(before), (-1, *added.shape[1:])), last


def _gradients(residuals, cotangents):
    """The adjoint states pass from the last chunk to the first.

    A sum s_t multiplies what step t reads and divides what it writes. Its gradient is therefore
    d_y_t y_t less d_u_t u_t, with the driven input u, and no matrix of T x T is summed for it.
    """
    driven, sums, B, C, before, y = residuals
    d_y, d_last, d_before = cotangents
    total = sums[..., -1]
    from_start = d_y * ops.exp(sums)[..., None]
    to_end = ops.exp(total[..., None] - sums)[..., None]
    d_read = exact_einsum("sgrtp,sgtn->sgrpn", from_start, C) + d_before
    later, d_start = _passed(total, d_read, d_last, reverse=True)  # adjoints after the chunks

    d_driven = exact_einsum("sgrpn,sgjn->sgrjp", later, B) * to_end
    d_total = backend.sum_of_products(driven, d_driven, axis=(3, 4))
    met = backend.sum_of_products(later, before, axis=(3, 4))
    d_total = d_total + ops.exp(total) * met
    decay = decays(sums)
    weights = backend.einsum("sgtn,sgjn->sgtj", C, B)[:, :, None] * decay
    d_driven = d_driven + backend.einsum("sgrtj,sgrtp->sgrjp", weights, d_y)
    d_scores = backend.einsum("sgrtp,sgrjp->sgrtj", d_y, driven)
    d_scores = backend.sum_of_products(d_scores, decay, axis=2)
    d_C = backend.einsum("sgtj,sgjn->sgtn", d_scores, B)
    d_C = d_C + exact_einsum("sgrtp,sgrpn->sgtn", from_start, before)
    d_B = backend.einsum("sgtj,sgtn->sgjn", d_scores, C)
    d_B = d_B + exact_einsum("sgrjp,sgrpn->sgjn", driven * to_end, later)
    d_sums = ops.sum(d_y * y - driven * d_driven, axis=-1)
    at_end = [(0, 0)] * 3 + [(sums.shape[-1] - 1, 0)]
    return d_driven, d_sums + backend.pad(d_total[..., None], at_end), d_B, d_C, d_start


def decays(sums):
    """exp(s_t - s_j) for j <= t, else 0: `(..., T)` to `(..., T, T)`.

    The mask comes before the exponential, which overflows above the diagonal.
    """
    T = sums.shape[-1]
    later = ops.convert_to_tensor(np.triu(np.ones((T, T), bool), 1))
    difference = sums[..., :, None] - sums[..., None, :]
    return ops.exp(ops.where(later, ops.cast(-np.inf, sums.dtype), difference))


def pass_states(log_a, added, initial, block=CHUNK_SIZE, most=None):
    """The states before each chunk, and after the last, of x' = exp(log_a) x + added.

    Up to `block` chunks are one product with a triangular matrix; more are cut into blocks, whose
    ends pass on in the same way.

    Args:
        log_a: tensor `(batch, chunks, groups, heads)`, at most 0.
        added: tensor `(batch, chunks, groups, heads, head_dim, state_dim)`.
        initial: tensor `(batch, groups, heads, head_dim, state_dim)`.
        block: int. Chunks that one product covers.
        most: int or `None`. The largest number of chunks, where it is not known.

    Returns:
        Tuple of tensors of the shapes of `added` and `initial`.

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), section 6, "state passing".
    """
    chunks, sizes = known(log_a.shape[1]), added.shape[2:]
    if chunks is not None and chunks <= block:
        return _pass_through(log_a, added, initial)
    count = chunks or ops.shape(log_a)[1]
    most = chunks or most or -(-longest() // CHUNK_SIZE)
    log_a = chunks_of(log_a, block, sizes[:2])  # (batch, blocks, block, groups, heads)
    added = chunks_of(added, block, sizes)
    if most <= block:
        before, last = _pass_through(log_a[:, 0], added[:, 0], initial)
        return before[:, :count], last
    sums = backend.cumsum(log_a, axis=2)
    ends = exact_einsum("bmkgr,bmkgrpn->bmgrpn", ops.exp(sums[:, :, -1:] - sums), added)
    starts, last = pass_states(sums[:, :, -1], ends, initial, block, -(-most // block))
    side_by_side = (ops.reshape(z, (-1, *z.shape[2:])) for z in (log_a, added, starts))
    before, _ = _pass_through(*side_by_side)
    lead = known(initial.shape[0]) or ops.shape(initial)[0]
    return ops.reshape(before, (lead, -1, *sizes))[:, :count], last


def _pass_through(log_a, added, initial):
    """`pass_states` as one product."""
    sums = backend.cumsum(log_a, axis=1)
    sums = ops.transpose(backend.pad(sums, [(0, 0), (1, 0), (0, 0), (0, 0)]), (0, 2, 3, 1))
    states = ops.concatenate([initial[:, None], added], axis=1)
    states = exact_einsum("bgrtj,bjgrpn->btgrpn", decays(sums), states)
    return states[:, :-1], states[:, -1]


def chunks_of(x, T, sizes):
    """`(batch, length, ...)` to `(batch, chunks, T, *sizes)`, zeros at the end."""
    length = known(x.shape[1])
    rank = [(0, 0)] * (len(x.shape) - 2)
    if length is None:
        count = (ops.shape(x)[1] + T - 1) // T
        x = backend.pad(x, [(0, 0), (0, T - 1), *rank])[:, : count * T]
    else:
        x = backend.pad(x, [(0, 0), (0, -length % T), *rank])
    lead = known(x.shape[0])
    if lead is None and length is None:
        lead = ops.shape(x)[0]
    count = -1 if length is None else -(-length // T)
    return ops.reshape(x, (-1 if lead is None else lead, count, T, *sizes))


def ssd_step(x, dt, A, B, C, D, state):
    """`ssd` of one sample: `(batch, heads, head_dim)`, and B, C `(batch, groups, state_dim)`."""
    heads_a_group = x.shape[1] // B.shape[1]
    B, C = (ops.repeat(z, heads_a_group, axis=1)[:, :, None] for z in (B, C))
    decay = ops.exp(dt * A)[..., None, None]
    state = decay * state + (dt[..., None] * x)[..., None] * B
    return ops.sum(state * C, axis=-1) + x * D, state
