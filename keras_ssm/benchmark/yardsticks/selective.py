"""The recurrences of Mamba, Mamba-2 and DeltaNet as others compute them, without kernels.

Each takes a dict of `dt`, `A`, `B` and `C`, and x, as `ops.selective_scan` and `ops.ssd` do, or of
`q`, `k` and `beta`, and v, as `ops.delta_rule` does, and returns y.
"""

import keras
import numpy as np
from keras import ops

from keras_ssm.benchmark.yardsticks import delta

CHUNK = 256

# Steps of which the slow path is timed: the time of its gradient grows with their square.
LONGEST_SLOW = 512


def forms(name):
    """The published forms of a recurrence on this backend, by name.

    Args:
        name: str. `"Mamba"`, `"Mamba2"` or `"DeltaNet"`.

    Returns:
        Dict of functions `(weights, x)`.
    """
    if name == "DeltaNet":
        # On two cores the gradient of JAX's solver may never end.
        return {} if keras.config.backend() == "jax" else {"chunks and a solver": delta.solved}
    if name == "Mamba2":
        return {"chunks of 256": chunk_path}
    runs = {"associative_scan": associative}
    if keras.config.backend() == "torch":  # compiled, neither form is the published one
        from keras_ssm.benchmark.yardsticks.torch import parallel_scan

        runs = {
            "slow path": slow_path,
            "parallel scan": scanned_by(parallel_scan),
            **runs,
        }
    return runs


def slow_path(w, x):
    """Mamba step by step: each step is taken from a tensor of all steps and states."""
    gains, driven = _all_steps(w, x)
    h, outputs = ops.zeros_like(driven[:, 0]), []
    for t in range(x.shape[1]):
        h = gains[:, t] * h + driven[:, t]
        outputs.append(ops.matmul(h, w["C"][:, t, :, None])[..., 0])
    return ops.stack(outputs, axis=1)


def scanned_by(scan):
    """Mamba by a function `(gains, driven)` that returns every state."""

    def function(w, x):
        states = scan(*_all_steps(w, x))
        return ops.matmul(states, w["C"][..., None])[..., 0]

    return function


def associative(w, x):
    """Mamba by Keras' associative scan, which is that of JAX there."""

    def combine(before, after):
        return after[0] * before[0], after[0] * before[1] + after[1]

    def scan(gains, driven):
        return ops.associative_scan(combine, (gains, driven), axis=1)[1]

    return scanned_by(scan)(w, x)


def _all_steps(w, x):
    """The factors of the state and the summands: `(batch, length, features, states)`."""
    dt = w["dt"][..., None]
    return ops.exp(dt * w["A"]), dt * w["B"][:, :, None] * x[..., None]


def chunk_path(w, x):
    """Mamba-2 as its paper lists it, in chunks of 256: B and C are repeated for every head.

    Reference:
        [Mamba-2](https://arxiv.org/abs/2405.21060), listing 1.
    """
    batch, length, heads, size = x.shape
    count = length // min(CHUNK, length)
    chunked = lambda z: ops.reshape(z, (batch, count, length // count, *z.shape[2:]))
    heads_a_group = heads // w["B"].shape[2]
    B, C = (chunked(ops.repeat(w[key], heads_a_group, axis=2)) for key in "BC")
    x = chunked(x * w["dt"][..., None])
    A = ops.transpose(chunked(w["dt"] * w["A"]), (0, 3, 1, 2))  # (batch, heads, chunks, T)
    sums = ops.cumsum(A, axis=-1)
    within = ops.exp(_segment_sums(A))
    y = ops.einsum("bclhn,bcshn->bhcls", C, B) * within
    y = ops.einsum("bhcls,bcshp->bclhp", y, x)
    to_end = ops.exp(sums[..., -1:] - sums)
    states = ops.einsum("bclhn,bhcl,bclhp->bchpn", B, to_end, x)
    states = ops.concatenate([ops.zeros_like(states[:, :1]), states], axis=1)
    across = ops.exp(_segment_sums(ops.pad(sums[..., -1], [(0, 0), (0, 0), (1, 0)])))
    states = ops.einsum("bhzc,bchpn->bzhpn", across, states)[:, :-1]
    y = y + ops.einsum("bclhn,bchpn,bhcl->bclhp", C, states, ops.exp(sums))
    return ops.reshape(y, (batch, length, heads, size))


def _segment_sums(a):
    """Sums of a over each segment, -inf where there is none."""
    T = a.shape[-1]
    earlier = np.tril(np.ones((T, T), bool), -1)
    wide = ops.where(earlier, ops.repeat(a[..., None], T, axis=-1), 0.0)
    return ops.where(np.tril(np.ones((T, T), bool)), ops.cumsum(wide, axis=-2), -np.inf)
