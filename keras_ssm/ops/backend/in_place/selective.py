"""The selective scan on a CPU: some steps at a time, with a gradient of its own.

A loop over the steps does nothing but h = g h + v. What goes in and out is computed for all steps
of a segment at once: a step by itself is too small for a kernel of XLA. Features lie beside each
other in memory. Segments are read from the tensors as they are and written into place. The gradient
computes the step sizes and states of a segment anew.
"""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.backend.in_place.segments import Segments, place

# Steps of a segment, whose states fit the caches; measured.
STEPS = 16


def fused_selective(x, dt, A, B, C, D, initial, portable, projection=()):
    """`ops.selective_scan`, or `ops.projected_scan`, on a CPU; else `None`.

    Args:
        x, dt: tensors `(batch, length, features)`, of a known length.
        A: tensor `(features, state_dim)`.
        B, C: tensors `(batch, length, state_dim)`.
        D: tensor `(features,)` or `None`.
        initial: tensor `(batch, features, state_dim)` or `None` (zero).
        portable: function of these tensors, and then those of `projection`, with the same results.
        projection: nothing, or of `ops.projected_scan` the kernel `(rank, features)`, bias
            `(features,)` and mask `(batch, length)` or `None`. What is called dt is then `low`,
            `(batch, length, rank)`.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)` and `(batch, features, state_dim)`.
    """
    numbers = dt, A, B, C, D, initial, *projection[:2]
    mixed = any(z is not None and z.dtype != x.dtype for z in numbers)
    if mixed or not backend.writes_in_place(x):
        return None
    tensors = x, dt, A, B, C, D, initial, *projection
    return backend.recomputed(_forward, _backward, portable)(*tensors)


def _forward(x, given, A, B, C, D, initial, kernel=None, bias=None, mask=None):
    """The outputs and the last state, and the states before the segments."""
    segments, A = Segments(x.shape[1], STEPS), ops.transpose(A)
    start = ops.zeros_like(x[:, 0, None] * A) if initial is None else _turned(initial)

    def segment(state, i, parts):
        new = segments.new(parts[0], i)
        X, low, b, c = _steps_first([new, *segments.read([given, B, C], i)])
        dt = _step_sizes(low, kernel, bias, _moving(segments, mask, i))
        _, after = _states(state, X, dt, A, b)
        part = backend.exact_einsum("tbnd,tbn->tbd", after, c)
        part = part if D is None else part + X * D
        return after[-1], _steps_first([part]), state

    last, (y,), starts = segments.replace(segment, start, [x])
    return (y, _turned(last)), starts


def _backward(tensors, starts, cotangents):
    """The adjoint recurrence l_t = C_t dy_t + exp(dt_(t+1) A) l_(t+1), from the last segment.

    Gradients take the place of what has been read: of x that of y.
    """
    x, given, A, B, C, D, initial, *projection = tensors
    kernel, bias, mask = projection or (None, None, None)
    d_y, d_last = cotangents
    segments, A = Segments(x.shape[1], STEPS), ops.transpose(A)
    exact = backend.exact_einsum

    def segment(carry, i, parts):
        later, sums = carry
        parts = [*segments.read([x], i), segments.new(parts[0], i), *parts[1:]]
        X, upstream, low, b, c = _steps_first(parts)
        dt = _step_sizes(low, kernel, bias, _moving(segments, mask, i))
        start = starts[i]
        gains, after = _states(start, X, dt, A, b)
        before = ops.concatenate([start[None], after[:-1]], axis=0)

        read = upstream[:, :, None] * c[..., None]
        adjoints = _adjoints(later, gains, read)
        earlier = gains[0] * adjoints[0]
        through = gains * adjoints * before  # the gradient of dt A
        d_driven = exact("tbnd,tbn->tbd", adjoints, b)
        d_x = d_driven * dt
        d_given = d_driven * X + exact("tbnd,nd->tbd", through, A)
        of_sums = {"A": exact("tbnd,tbd->nd", through, dt)}
        if D is not None:
            d_x = d_x + upstream * D
            of_sums["D"] = exact("tbd,tbd->d", upstream, X)
        if kernel is not None:
            # The slope of softplus is 1 - exp(-softplus): 0 where nothing moves.
            d_raw = d_given * -ops.expm1(-dt)
            d_given = backend.einsum("tbd,rd->tbr", d_raw, kernel)
            of_sums["kernel"] = backend.einsum("tbr,tbd->rd", low, d_raw)
            of_sums["bias"] = ops.sum(d_raw, axis=(0, 1))
        slopes = [
            d_x,
            d_given,
            exact("tbnd,tbd->tbn", adjoints, dt * X),
            exact("tbnd,tbd->tbn", after, upstream),
        ]
        sums = {name: total + of_sums[name] for name, total in sums.items()}
        return (earlier, sums), _steps_first(slopes), None

    sums = {"A": A, "D": D, "kernel": kernel, "bias": bias}
    sums = {name: ops.zeros_like(z) for name, z in sums.items() if z is not None}
    carry, replaced = (_turned(d_last), sums), [d_y, given, B, C]
    (d_start, sums), slopes, _ = segments.replace(segment, carry, replaced, reverse=True)
    d_x, d_given, d_B, d_C = slopes
    d_initial = None if initial is None else _turned(d_start)
    weights = [sums.get("kernel"), sums.get("bias"), None][: len(projection)]
    return d_x, d_given, ops.transpose(sums["A"]), d_B, d_C, sums.get("D"), d_initial, *weights


def _turned(state):
    """`(batch, features, state_dim)` with the last axes exchanged."""
    return ops.swapaxes(state, 1, 2)


def _steps_first(parts):
    """Parts with the batch and the steps exchanged."""
    return [ops.swapaxes(part, 0, 1) for part in parts]


def _moving(segments, mask, i):
    """Where the state moves, or `None` for everywhere."""
    new = segments.are_new(i)[:, None] if segments.overlap else None
    if mask is None:
        return new
    (seen,) = _steps_first(segments.read([mask[..., None]], i))
    return seen if new is None else seen & new


def _step_sizes(given, kernel, bias, moving):
    """The step sizes: given, or softplus(low kernel + bias); 0 where nothing moves."""
    if kernel is not None:
        given = ops.softplus(backend.einsum("tbr,rd->tbd", given, kernel) + bias)
    return given if moving is None else ops.where(moving, given, ops.zeros_like(given))


def _states(state, x, dt, A, B):
    """exp(dt A) of each step, and the state after each: `(steps, batch, state_dim, features)`."""
    gains = ops.exp(dt[:, :, None] * A)

    driven = (dt * x)[:, :, None] * B[..., None]
    return gains, _passed(state, driven, lambda t: gains[t])


def _adjoints(later, gains, read):
    """The adjoint of the state after each step; what is later reaches the last as it is."""
    last = gains.shape[0] - 1
    adjoint = later + read[last]
    read = ops.slice_update(read, place(last, 0, 4), adjoint[None])
    return _passed(adjoint, read, lambda t: gains[t + 1], last, reverse=True)


def _passed(state, values, gain, count=None, reverse=False):
    """The states h_t = gain(t) h + values_t, which take the place of the values they have read."""
    count = values.shape[0] if count is None else count

    def one(i, carry):
        values, h = carry
        t = count - 1 - i if reverse else i
        h = gain(t) * h + values[t]
        return ops.slice_update(values, place(t, 0, 4), h[None]), h

    return ops.fori_loop(0, count, one, (values, state))[0]
