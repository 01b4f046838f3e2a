"""What the kernels need beside the sequences, and what becomes of their sums: small arrays.

XLA makes a few kernels of them. Numbers of a bank are complex `(features, modes)` here; those of
the walk are filled up with zeros and lie in lanes, some of them for each feature.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from keras_ssm.ops.backend.walk_plan import T

STEPS = np.arange(T)


def power(log_dA, exponent):
    """a^exponent; the angle is not rounded before its sine is taken.

    It falls into three parts of eight bits, whose products with up to 65,536 are exact.
    """
    re, im = log_dA
    turn = 1.0
    for _ in range(3):
        bits = lax.bitcast_convert_type(im, jnp.int32) & -65536
        part = lax.bitcast_convert_type(bits, jnp.float32)
        im = im - part
        angle = exponent * part
        turn = turn * lax.complex(jnp.cos(angle), jnp.sin(angle))
    return jnp.exp(exponent * re) * turn


def powers(log_dA, exponents):
    """`(features, modes, exponents)`."""
    return power([part[..., None] for part in log_dA], exponents.astype("float32"))


def filled(x, plan):
    """`(features, modes, ...)` in lanes `(lanes, modes of a lane, ...)`."""
    features, modes, *rest = x.shape
    most = plan.size * plan.parts
    x = jnp.pad(x, [(0, plan.width - features), (0, most - modes)] + [(0, 0)] * len(rest))
    return x.reshape(plan.lanes, plan.size, *rest)


def pairs(x):
    """Real and imaginary parts beside each other, behind the lanes."""
    return jnp.stack([x.real, x.imag], axis=1)


def matrices(plan, log_dA, C, dB, D, normal, first=1):
    """F, E, K and A of a plane, flat, for outputs 2 Re(C x); `normal` makes dB a part of C.

    Entry i of E belongs to the power i + `first`.
    """
    low = powers(log_dA, STEPS)
    g = C * dB
    K = 2.0 * jnp.sum((g[..., None] * low).real, axis=1)
    if D is not None:
        K = K.at[:, 0].add(D)
    K = jnp.pad(K, [(0, plan.width - plan.features), (0, 0)])
    F = low if normal else dB[..., None] * low
    F = jnp.swapaxes(pairs(filled(F, plan)), 2, 3)
    E = 2.0 * jnp.conj((g if normal else C)[..., None] * powers(log_dA, STEPS + first))
    A = pairs(filled(power(log_dA, float(T)), plan))
    return [x.ravel() for x in (F, pairs(filled(E, plan)), K, A)]


def gathered(plan, log_dA, C, dB, sums, lags):
    """The gradients of log a, C, dB, as pairs of real arrays, and D.

    With P the sum over t of u lam and W that of u om: of g = C dB it is 2 conj(P), of log a
    2 conj(g W).
    """
    programs = sums.size // (plan.lanes * 4 * plan.size)
    sums = jnp.sum(sums.reshape(programs, plan.width, plan.parts, 4, plan.size), axis=0)
    sums = jnp.moveaxis(sums, 2, 1).reshape(plan.width, 4, -1)[: plan.features, :, : plan.modes]
    products = jnp.sum(lags.reshape(programs, plan.width, T, T), axis=0)[: plan.features]
    # Entry (i, j) of the products has lag i + j - T + 1; negative lags have no meaning.
    lag = STEPS[:, None] + STEPS[None] - (T - 1)
    r = jnp.sum(jnp.where(lag[..., None] == STEPS, products[..., None], 0.0), axis=(1, 2))
    low, a = powers(log_dA, STEPS), power(log_dA, 1.0)
    P = a * lax.complex(sums[:, 0], sums[:, 1]) + jnp.sum(r[:, None] * low, -1)
    steps = STEPS.astype("float32")
    W = a * lax.complex(sums[:, 2], sums[:, 3]) + jnp.sum((steps * r)[:, None] * low, -1)
    return slope(C * dB * W), slope(dB * P), slope(C * P), r[:, 0]


def slope(x):
    """The gradient of the real and the imaginary part of a number z in 2 Re(z x)."""
    return 2.0 * x.real, -2.0 * x.imag


def unfilled(plan, states):
    """The states after the last segment as complex `(batch, features, modes)`, one or two."""
    states = states.reshape(plan.batch, plan.width, plan.parts, -1, 2, plan.size)
    states = jnp.moveaxis(states, 2, 4)[:, : plan.features]
    states = states.reshape(*states.shape[:4], -1)[..., : plan.modes]
    return [lax.complex(states[:, :, i, 0], states[:, :, i, 1]) for i in range(states.shape[2])]
