"""The selective scan of Mamba: blocks of steps side by side, states made anew for the gradient."""

from keras import ops

from keras_ssm.ops import backend, doubling
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.exporting import known, loops_allowed
from keras_ssm.ops.ssd import chunks_of

# Steps in a block. Only the first state of a block is stored for the gradient. Measured.
STEPS = 32


def selective_scan(x, dt, A, B, C, D=None, initial_state=None):
    """Applies h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t, y_t = h_t C_t + D x_t to each feature.

    No tensor holds a state for every step: blocks of steps start from states that were kept.

    Args:
        x: tensor `(batch, length, features)`. Inputs.
        dt: tensor `(batch, length, features)`. Step sizes; where one is 0 the state stays.
        A: tensor `(features, state_dim)`, negative.
        B, C: tensors `(batch, length, state_dim)`, shared by the features.
        D: tensor `(features,)` or `None`. Skip.
        initial_state: tensor `(batch, features, state_dim)` or `None` (zero).

    Returns:
        Tuple `(y, state)`: `(batch, length, features)` and the last state.

    Example:
        ```python
        x = dt = B = ops.ones((1, 3, 1))
        y, state = keras_ssm.ops.selective_scan(x, dt, ops.log([[0.5]]), B, B)  # 1, 1.5, 1.75
        ```

    Reference:
        [Mamba](https://arxiv.org/abs/2312.00752), section 3.2 and algorithm 2.
    """
    tensors = x, dt, A, B, C, D, initial_state
    if not _loops_over(x):
        return _without_loops(*tensors)
    outputs = backend.fused_selective(*tensors, _in_blocks)
    return _in_blocks(*tensors) if outputs is None else outputs


def projected_scan(x, low, kernel, bias, A, B, C, D=None, mask=None, initial_state=None):
    """Applies `selective_scan` with the step sizes of `layers.Mamba`, softplus(low kernel + bias).

    A form of a backend keeps them alone for the gradient, and not what softplus was applied to.

    Args:
        x: tensor `(batch, length, features)`. Inputs.
        low: tensor `(batch, length, rank)`.
        kernel: tensor `(rank, features)`.
        bias: tensor `(features,)`.
        A, B, C, D: those of `selective_scan`.
        mask: boolean tensor `(batch, length)` or `None`. Where it is False the size is 0.
        initial_state: that of `selective_scan`.

    Returns:
        Tuple `(y, state)`, as of `selective_scan`.
    """
    tensors = x, low, A, B, C, D, initial_state
    projection, outputs = (kernel, bias, mask), None
    if _loops_over(x):
        outputs = backend.fused_selective(*tensors, _projected, projection)
    return _projected(*tensors, *projection, selective_scan) if outputs is None else outputs


def _projected(x, low, A, B, C, D, initial_state, kernel, bias, mask, scan=None):
    """`projected_scan` in operations that every backend has."""
    dt = ops.softplus(backend.matmul(low, kernel) + bias)
    if mask is not None:
        dt = ops.where(mask[..., None], dt, ops.zeros_like(dt))
    return (scan or _in_blocks)(x, dt, A, B, C, D, initial_state)


def _loops_over(x):
    """Whether a loop may run over the steps of x."""
    unknown = known(x.shape[1]) is None
    return loops_allowed() and (not unknown or backend.loops_over_unknown_steps())


def _in_blocks(x, dt, A, B, C, D, initial_state):
    """`selective_scan` in operations that every backend has."""
    length, features, state_dim = known(x.shape[1]), x.shape[2], A.shape[1]
    if initial_state is None:
        initial_state = ops.zeros_like(x[:, 0, :, None] * A)
    steps = STEPS if length is None else min(STEPS, length)
    count = None if length is None else -(-length // steps)
    lead = known(x.shape[0])
    width = backend.blocks_side_by_side(count, (lead or 1) * features * state_dim)
    fold = lambda z: _segments(z, steps, width)
    scan = backend.with_gradient(_scan, _gradients)
    y, state, _ = scan(*map(fold, (x, dt)), A, *map(fold, (B, C)), initial_state)
    y = ops.transpose(y, (2, 0, 3, 1, 4))  # (batch, segments, blocks, steps, features)
    y = ops.reshape(y, (lead or ops.shape(x)[0], -1, features))[:, : length or ops.shape(x)[1]]
    return y if D is None else y + x * D, state


def _without_loops(x, dt, A, B, C, D, initial_state):
    """`selective_scan` for programs without loops: short blocks unrolled, doublings over them."""
    length, features = known(x.shape[1]), x.shape[2]
    steps = min(doubling.LONGEST_UNROLLED, length or doubling.LONGEST_UNROLLED)
    by_block = [chunks_of(z, steps, (z.shape[2],)) for z in (x, dt, B, C)]
    samples = [tuple(z[:, :, t] for z in by_block) for t in range(steps)]
    h = ops.zeros_like(by_block[0][:, :, 0, :, None] * A)
    for x_t, dt_t, B_t, _ in samples:
        h = _advance(h, x_t, dt_t, A, B_t)
    decay = ops.exp(ops.sum(by_block[1], axis=2)[..., None] * A)
    start = ops.zeros_like(h[:, 0]) if initial_state is None else initial_state
    squared = lambda a, move: a * move(a)
    states = doubling.states(decay, h, start, ops.multiply, squared, axis=1, steps=steps)
    h, outputs = states[:, :-1], []
    for x_t, dt_t, B_t, C_t in samples:
        h = _advance(h, x_t, dt_t, A, B_t)
        outputs.append(exact_einsum("bkdn,bkn->bkd", h, C_t))
    lead = known(x.shape[0]) or ops.shape(x)[0]
    y = ops.reshape(ops.stack(outputs, axis=2), (lead, -1, features))
    y = y[:, : length or ops.shape(x)[1]]
    return y if D is None else y + x * D, states[:, -1]


def _segments(z, steps, width):
    """`(batch, length, size)` to `(segments, steps, batch, blocks, size)`."""
    z = chunks_of(z, steps * width, (z.shape[2],))
    lead, count = known(z.shape[0]), known(z.shape[1])
    lead = ops.shape(z)[0] if lead is None and count is None else lead
    shape = (-1 if lead is None else lead, -1 if count is None else count, width, steps)
    return ops.transpose(ops.reshape(z, (*shape, z.shape[-1])), (1, 3, 0, 2, 4))


def _scan(x, dt, A, B, C, initial):
    """The outputs and last state of all segments, and what the gradient needs.

    The states before the blocks are outputs too, as second derivatives pass through them.
    """

    def one(state, sample):
        x, dt, B, C = sample
        starts, after = _starts(x, dt, A, B, state)

        def step(h, sample):
            x, dt, B, C = sample
            h = _advance(h, x, dt, A, B)
            return h, exact_einsum("bkdn,bkn->bkd", h, C)

        ends, y = backend.sequential(step, starts, (x, dt, B, C))
        return ends[:, 0] if after is None else after, (y, starts)

    state, (y, starts) = backend.sequential(one, initial, (x, dt, B, C))
    return (y, state, starts), (x, dt, A, B, C, starts)


def _advance(h, x, dt, A, B):
    return ops.exp(dt[..., None] * A) * h + (dt * x)[..., None] * B[..., None, :]


def _over_blocks(decay, added, initial, reverse=False):
    """The states before each block (after it if `reverse`), and beyond the last one."""

    def step(h, sample):
        decay, added = sample
        return decay * h + added, h

    first = lambda z: ops.moveaxis(z, 1, 0)
    last, states = backend.sequential(step, initial, (first(decay), first(added)), reverse)
    return ops.moveaxis(states, 0, 1), last


def _starts(x, dt, A, B, state):
    """The state before each block of a segment, and after the last (`None` of a single block)."""
    if x.shape[2] == 1:
        return state[:, None], None
    zero = ops.zeros_like(x[0][..., None] * A)
    step = lambda h, sample: (_advance(h, *sample[:2], A, sample[2]), None)
    ends, _ = backend.sequential(step, zero, (x, dt, B))
    decay = ops.exp(ops.sum(dt, axis=0)[..., None] * A)
    return _over_blocks(decay, ends, state)


def _gradients(residuals, cotangents):
    """The adjoint recurrence l_t = C_t dy_t + exp(dt_(t+1) A) l_(t+1), block by block."""
    x, dt, A, B, C, starts = residuals
    d_y, d_state, d_starts = cotangents

    def one(carry, sample):
        later, d_A = carry
        x, dt, B, C, d_y, starts, d_starts = sample

        def forward(h, sample):
            return _advance(h, *sample[:2], A, sample[2]), h

        def local(adjoint, sample):
            dt, C, d_y = sample
            adjoint = adjoint + d_y[..., None] * C[..., None, :]
            return ops.exp(dt[..., None] * A) * adjoint, None

        def step(carry, sample):
            adjoint, d_A = carry
            x, dt, B, C, d_y, h = sample
            decayed = ops.exp(dt[..., None] * A)
            adjoint = adjoint + d_y[..., None] * C[..., None, :]
            moved = decayed * adjoint
            through = moved * h  # the gradient of dt A
            after = decayed * h + (dt * x)[..., None] * B[..., None, :]
            d_u = exact_einsum("bkdn,bkn->bkd", adjoint, B)
            slopes = (
                d_u * dt,
                d_u * x + ops.sum(through * A, axis=-1),
                exact_einsum("bkdn,bkd->bkn", adjoint, dt * x),
                exact_einsum("bkdn,bkd->bkn", after, d_y),
            )
            return (moved, d_A + through * dt[..., None]), slopes

        _, before = backend.sequential(forward, starts, (x, dt, B))
        zero = ops.zeros_like(starts)
        if x.shape[2] == 1:
            adjoints = later[:, None]
        else:
            ends, _ = backend.sequential(local, zero, (dt, C, d_y), reverse=True)
            decay = ops.exp(ops.sum(dt, axis=0)[..., None] * A)
            adjoints, earlier = _over_blocks(decay, ends + d_starts, later, reverse=True)
        (first, total), slopes = backend.sequential(
            step, (adjoints, zero), (x, dt, B, C, d_y, before), reverse=True
        )
        earlier = (first + d_starts)[:, 0] if x.shape[2] == 1 else earlier
        return (earlier, d_A + ops.sum(total, axis=(0, 1))), slopes

    samples = (x, dt, B, C, d_y, starts, d_starts)
    carry = (d_state, ops.zeros_like(A))
    (d_initial, d_A), slopes = backend.sequential(one, carry, samples, reverse=True)
    d_x, d_dt, d_B, d_C = slopes
    return d_x, d_dt, d_A, d_B, d_C, d_initial


def selective_step(x, dt, A, B, C, D, state):
    """`selective_scan` of one sample: `(batch, features)`, and B, C `(batch, state_dim)`."""
    state = _advance(state, x, dt, A, B)
    return ops.sum(state * C[:, None], axis=-1) + D * x, state
