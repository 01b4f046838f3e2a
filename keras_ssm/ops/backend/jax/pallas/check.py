"""A comparison of the kernels with float64, small enough for a first call."""

import jax
import jax.numpy as jnp
import numpy as np

from keras_ssm.ops.backend.jax.pallas import functions

BATCH, LENGTH, FEATURES = 2, 150, 3


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
    pairs = zip((np.asarray(x, "float64") for x in found), expected, strict=True)
    worst = max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs)
    return float(worst) if np.isfinite(worst) else float("inf")


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
