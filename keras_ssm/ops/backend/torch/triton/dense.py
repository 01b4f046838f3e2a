"""The recurrence of dense transitions, one a feature, as a Triton kernel.

A program takes a feature and 16 rows, whose states stay in registers with the transition beside
them. Where rows are few, sequences are cut into segments that run side by side: their ends from
zero, then the states before them, then all states.
"""

import torch
import triton
import triton.language as tl

from keras_ssm.ops.backend.kernel_support import SMALLEST_TILE, padded
from keras_ssm.ops.backend.torch.precision import exact

ROWS = SMALLEST_TILE

# Programs that fill a card, and steps of a segment below which it is not worth while.
PROGRAMS = 256
SHORTEST_SEGMENT = 16


@triton.jit(do_not_specialize=["steps", "G", "S", "rows", "size"])
def _dense_kernel(
    E,
    E_feature,
    E_row,
    E_column,
    inputs,
    in_feature,
    in_batch,
    in_step,
    states,
    out_feature,
    out_batch,
    out_step,
    start,
    end,
    steps,
    size,
    G,
    S,
    rows,
    M: tl.constexpr,
    N: tl.constexpr,
    REVERSE: tl.constexpr,
    STARTED: tl.constexpr,
    ENDS: tl.constexpr,
):
    """The state before each step; with ENDS only that at the end of each segment."""
    h = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * M + tl.arange(0, M)
    n = tl.arange(0, N)
    k = tl.arange(0, N)
    b = (r // G).to(tl.int64)
    g = r % G
    here = (r < rows)[:, None] & (n < size)[None, :]
    E += h * E_feature + k[:, None] * E_row + n[None, :] * E_column
    matrix = tl.load(E, mask=(k < size)[:, None] & (n < size)[None, :], other=0.0)
    x = tl.full([M, N], 0.0, tl.float32)
    at = (h * rows + r)[:, None] * size + n[None, :]
    if STARTED:
        x = tl.load(start + at, mask=here, other=0.0)
    inputs += h * in_feature + b[:, None] * in_batch + n[None, :]
    states += h * out_feature + b[:, None] * out_batch + n[None, :]
    for i in range(S):
        step = g * S + i
        known = here & (step < steps)[:, None]
        t = (steps - 1 - step if REVERSE else step).to(tl.int64)[:, None]
        added = tl.load(inputs + t * in_step, mask=known, other=0.0)
        if not ENDS:
            tl.store(states + t * out_step, x, mask=known)
        moved = tl.dot(x, matrix, x + added, input_precision="tf32x3")
        x = tl.where(known, moved, x)
    if ENDS:
        tl.store(end + at, x, mask=here)
    else:  # the last segment has the state after the sequence
        at = (h * (rows // G) + b)[:, None] * size + n[None, :]
        tl.store(end + at, x, mask=here & (g == G - 1)[:, None])


def dense_states(E, inputs, states, initial, reverse):
    """Fills in the states before each step of x_t = x_(t-1) (I + E) + s_t.

    Args:
        E: float32 tensor `(features, states, states)`. Transition of rows less the identity.
        inputs: tensor `(features, batch, steps, states)` with numbers beside each other.
        states: tensor as `inputs`, to be filled.
        initial: tensor `(features, batch, states)` or `None` (zero).
        reverse: bool. Whether the recurrence runs from the last step to the first.

    Returns:
        Tensor `(features, batch, states)`: the state after the last step.
    """
    features, batch, steps, _ = inputs.shape
    G, S = _segments(features, batch, steps)
    with torch.cuda.device_of(inputs):
        if G > 1:
            ends = inputs.new_empty((features, batch, G, inputs.shape[3]))
            _walk(E, inputs, states, None, ends, reverse, G, S, ENDS=True)
            over = E
            for _ in range(S.bit_length() - 1):
                over = 2.0 * over + exact(torch.bmm, over, over)
            starts, last = torch.empty_like(ends), torch.empty_like(ends[:, :, 0])
            _walk(over, ends, starts, initial, last, False, 1, G, ENDS=False)
            initial = starts
        last = inputs.new_empty((features, batch, inputs.shape[3]))
        _walk(E, inputs, states, initial, last, reverse, G, S, ENDS=False)
    return last


def _walk(E, inputs, states, start, end, reverse, G, S, ENDS):
    features, batch, steps, size = inputs.shape
    rows = batch * G
    start = None if start is None else start.contiguous()
    _dense_kernel[(features, triton.cdiv(rows, ROWS))](
        E,
        *E.stride(),
        inputs,
        *inputs.stride()[:3],
        states,
        *states.stride()[:3],
        inputs if start is None else start,
        end,
        steps,
        size,
        G,
        S,
        rows,
        M=ROWS,
        N=padded(size),
        REVERSE=reverse,
        STARTED=start is not None,
        ENDS=ENDS,
        num_warps=4,
    )


def _segments(features, batch, steps):
    """The number of segments of a sequence, and the steps of each, a power of two if several."""
    G = 1
    while steps // (2 * G) >= SHORTEST_SEGMENT and (
        batch * G < ROWS or features * triton.cdiv(batch * G, ROWS) < PROGRAMS
    ):
        G *= 2
    if G == 1:
        return 1, steps
    S = 1 << (-(-steps // G) - 1).bit_length()
    return -(-steps // S), S
