"""The delta rule as others compute it, without kernels: with a solver, or a loop over the rows."""

import numpy as np
from keras import ops

CHUNK = 64


def solved(w, v):
    """Chunks of 64 whose triangular systems a solver solves, one chunk after another.

    Args:
        w: dict of q `(batch, length, heads, key_dim)`, k `(batch, length, 1, heads, key_dim)` and
            beta `(batch, length, 1, heads)`.
        v: tensor `(batch, length, 1, heads, value_dim)`.

    Returns:
        Tensor `(batch, length, heads, value_dim)`.

    Reference:
        [DeltaNet](https://arxiv.org/abs/2406.06484), section 3.2, equations 7 to 11.
    """
    batch, length, heads, _ = w["q"].shape
    T = min(CHUNK, length)
    q, k, v, beta = w["q"], w["k"][:, :, 0], v[:, :, 0], w["beta"][:, :, 0, :, None]

    def chunked(z):
        z = ops.reshape(z, (batch, length // T, T, heads, z.shape[-1]))
        return ops.transpose(z, (0, 3, 1, 2, 4))

    q, k, v, beta = map(chunked, (q, k, v, beta))
    turned = ops.transpose(k, (0, 1, 2, 4, 3))
    lower = ops.convert_to_tensor(np.tri(T, dtype="float32"))
    eye = ops.convert_to_tensor(np.eye(T, dtype="float32"))
    system = eye + ops.matmul(beta * k, turned) * (lower - eye)
    both = ops.solve_triangular(system, ops.concatenate([beta * v, beta * k], axis=-1), lower=True)
    u, weights = both[..., : v.shape[-1]], both[..., v.shape[-1] :]
    scores = ops.matmul(q, turned) * lower
    state, outputs = ops.zeros((batch, heads, k.shape[-1], v.shape[-1])), []
    for i in range(length // T):
        written = u[:, :, i] - ops.matmul(weights[:, :, i], state)
        outputs.append(ops.matmul(q[:, :, i], state) + ops.matmul(scores[:, :, i], written))
        state = state + ops.matmul(turned[:, :, i], written)
    y = ops.transpose(ops.stack(outputs, axis=2), (0, 2, 3, 1, 4))
    return ops.reshape(y, (batch, length, heads, -1))
