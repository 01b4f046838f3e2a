"""Comparisons of the kernels with float64, small enough for a first call."""

import jax
import jax.numpy as jnp
import numpy as np

from keras_ssm.ops.backend.jax.pallas import functions, mamba

BATCH, LENGTH, FEATURES = 2, 150, 3

# Of the selective scan: two segments, and two programs for the features, one of them not full.
OF_SCAN = 2, 290, 36


def error_of_bank(dtype, modes):
    """The largest error of outputs and gradients of a bank, relative to the largest entry.

    Args:
        dtype: string. Data type of the sequences.
        modes: int. A power of two; the bank has a few less.

    Returns:
        float, infinite if there is something that is no number.
    """
    rng, modes = np.random.default_rng(0), modes - 3
    pace = np.array([[0.3], [0.03], [0.005]])
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")
    log_dA = (-0.5 * pace + 0 * np.arange(modes), 3.0 * pace * np.arange(modes))
    log_dA = tuple(part.astype("float32") for part in log_dA)
    C = draw(1, FEATURES, modes), draw(1, FEATURES, modes)
    dB, D = (draw(FEATURES, modes), draw(FEATURES, modes)), draw(1, FEATURES)
    u, dy = (jnp.asarray(draw(BATCH, LENGTH, FEATURES), dtype) for _ in "12")
    tensors = jax.tree.map(jnp.asarray, (u, log_dA, C, dB, D, None))
    found = functions.outputs(*tensors), functions.slopes(tensors, dy)
    found, expected = jax.tree.leaves(found), _by_definition(u, log_dA, C, dB, D, dy)
    return _largest(found, expected)


def error_of_selective_scan(dtype, states):
    """The same of a selective scan with all that it may have.

    Args:
        dtype: string. Data type of the sequences.
        states: int. A power of two; the scan has one less, where that is no power of two as well.
    """
    rng, states = np.random.default_rng(0), states - (states > 2)
    batch, length, features = OF_SCAN
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")
    short = lambda *shape: np.asarray(jnp.asarray(draw(*shape), dtype).astype("float32"))
    x, dy = short(batch, length, features), short(batch, length, features)
    B, C = short(batch, length, states), short(batch, length, states)
    low, kernel, bias = draw(batch, length, 1), draw(1, features), draw(features) - 1.0
    system = -np.exp(draw(features, states)), draw(features), draw(batch, features, states)
    mask = (rng.random((batch, length)) < 0.9).astype("float32")
    d_last = draw(batch, features, states)
    narrow = lambda z: jnp.asarray(z, dtype)
    A, D, initial = map(jnp.asarray, system)
    rest = kernel, bias, mask
    tensors = (narrow(x), low, A, narrow(B), narrow(C), D, initial, *map(jnp.asarray, rest))
    outputs, kept = mamba.outputs(*tensors, keep=True)
    slopes = mamba.slopes(tensors, (narrow(dy), jnp.asarray(d_last)), kept)
    found = jax.tree.leaves((outputs, slopes[:-1]))  # of the mask there is none
    expected = _step_by_step(x, low, system, B, C, rest, dy, d_last)
    return _largest(found, expected)


def _largest(found, expected):
    pairs = zip((np.asarray(x, "float64") for x in found), expected, strict=True)
    worst = max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs)
    return float(worst) if np.isfinite(worst) else float("inf")


def _step_by_step(x, low, system, B, C, rest, dy, d_last):
    """Outputs, last state and gradients of a selective scan, in float64."""
    wide = lambda *arrays: (z.astype("float64") for z in arrays)
    x, low, B, C, dy, later = wide(x, low, B, C, dy, d_last)
    A, D, state, kernel, bias, mask = wide(*system, *rest)
    raw = low @ kernel + bias
    dt = mask[..., None] * np.logaddexp(0.0, raw)
    before, y = [], D * x
    for t in range(x.shape[1]):
        before.append(state)
        gain = np.exp(dt[:, t, :, None] * A)
        state = gain * state + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        y[:, t] += np.einsum("bhn,bn->bh", state, C[:, t])
    last, after, dA = state, state, np.zeros_like(A)
    dx, d_dt, dB, dC = D * dy, np.zeros_like(dt), np.zeros_like(B), np.zeros_like(C)
    for t in reversed(range(x.shape[1])):
        size = dt[:, t, :, None]
        later = later + dy[:, t, :, None] * C[:, t, None]
        dC[:, t] = np.einsum("bhn,bh->bn", after, dy[:, t])
        dB[:, t] = np.einsum("bhn,bh->bn", later, dt[:, t] * x[:, t])
        driven = np.einsum("bhn,bn->bh", later, B[:, t])
        later, after = np.exp(size * A) * later, before[t]
        dx[:, t] += driven * dt[:, t]
        d_dt[:, t] = driven * x[:, t] + np.sum(later * after * A, axis=-1)
        dA += np.sum(later * after * size, axis=0)
    d_raw = d_dt * mask[..., None] / (1.0 + np.exp(-raw))
    d_kernel, d_bias = np.einsum("blr,blh->rh", low, d_raw), np.sum(d_raw, axis=(0, 1))
    of_system = dA, dB, dC, np.sum(x * dy, axis=(0, 1)), later
    return [y, last, dx, d_raw @ kernel.T, *of_system, d_kernel, d_bias]


def _by_definition(u, log_dA, C, dB, D, dy):
    """Outputs and gradients by the kernel of each feature, in float64."""
    u, dy = np.asarray(u, "float64"), np.asarray(dy, "float64")
    z, C, dB = (re.astype("float64") + 1j * im for re, im in (log_dA, C, dB))
    C, steps = C[0], np.arange(LENGTH)
    powers = np.exp(z[..., None] * steps)
    K = 2.0 * np.sum((C * dB)[..., None] * powers, axis=1).real
    lag = steps[:, None] - steps
    matrices = np.where(lag >= 0, K[:, np.maximum(lag, 0)], 0.0)
    y = np.einsum("hts,bsh->bth", matrices, u) + D[0] * u
    du = np.einsum("hts,bth->bsh", matrices, dy) + D[0] * dy
    outer = np.einsum("bth,bsh->hts", dy, u)
    slopes = np.stack([np.trace(outer, -n, 1, 2) for n in steps], axis=-1)  # of K
    P, W = (np.einsum("hl,hnl->hn", n * slopes, powers) for n in (1.0, steps))
    gradients = [2.0 * np.conj(x) for x in (C * dB * W, (dB * P)[None], C * P)]
    parts = [part for x in gradients for part in (x.real, x.imag)]
    return [y, du, *parts, slopes[None, :, 0]]
