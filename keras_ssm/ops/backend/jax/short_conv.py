"""A short causal convolution and its SiLU on JAX, which keep their input alone.

The gradient computes both again, some steps at a time: of a whole sequence XLA would see that they
have been computed before, and keep them.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from keras_ssm.ops.backend.jax.segments import Segments

# Numbers of a segment, which a CPU's caches hold.
TOGETHER = 2**16


def fused_conv_silu(x, kernel, bias, before, portable):
    """The SiLU of a causal convolution on a CPU; `None` for short sequences.

    Args:
        x: tensor `(batch, length, features)`.
        kernel: tensor `(K, features)`. The last entry multiplies the current sample.
        bias: tensor `(features,)` or `None`.
        before: tensor `(batch, K - 1, features)` or `None` (zero).
        portable: function of these tensors with the same result.

    Returns:
        Tensor of the shape of x.
    """
    known = isinstance(x.shape[1], int) and isinstance(x.shape[0], int)
    if jax.default_backend() != "cpu" or not known or x.dtype != kernel.dtype:
        return None
    steps = max(kernel.shape[0], TOGETHER // (x.shape[0] * x.shape[2]))
    return _conv_silu(portable, steps, x, kernel, bias, before) if steps < x.shape[1] else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv_silu(portable, steps, *tensors):
    return portable(*tensors)


def _forward(portable, steps, *tensors):
    x, kernel, bias, _ = tensors
    segments, window = _windows(steps, *tensors)

    def segment(carry, i, parts):
        return carry, [jax.nn.silu(_convolved(window(i), kernel, bias))], None

    return segments.replace(segment, None, [x])[1][0], tensors


def _windows(steps, x, kernel, bias, before):
    """Segments, and a function that reads what each entry of the kernel multiplies in one."""
    segments, reach = Segments(x.shape[1], steps), kernel.shape[0] - 1
    first = jnp.zeros_like(x[:, :reach]) if before is None else before
    first = jnp.concatenate([first, x[:, :reach]], axis=1)

    def window(i):
        start = segments.start(i)
        seen = jnp.where(
            start < reach,
            lax.dynamic_slice_in_dim(first, start, reach, 1),
            lax.dynamic_slice_in_dim(x, start - reach, reach, 1),
        )
        return _shifted(jnp.concatenate([seen, *segments.read([x], i)], axis=1), steps)

    return segments, window


def _convolved(window, kernel, bias):
    y = sum(z * weight for z, weight in zip(window, kernel, strict=True))
    return y if bias is None else y + bias


def _backward(portable, steps, tensors, upstream):
    """From the last segment to the first, which needs the first slopes of the one behind it."""
    x, kernel, bias, before = tensors
    segments, window = _windows(steps, *tensors)
    reach = kernel.shape[0] - 1

    def segment(carry, i, parts):
        later, d_kernel, d_bias = carry
        seen = window(i)
        y = _convolved(seen, kernel, bias)
        share = jax.nn.sigmoid(y)
        slope = segments.new(parts[0] * share * (1 + y * (1 - share)), i)
        slopes = jnp.concatenate([slope, later], axis=1)
        later = lax.dynamic_slice_in_dim(slopes, i * steps - segments.start(i), reach, 1)
        total = lambda z: jnp.sum(z, axis=(0, 1), dtype=d_bias.dtype)
        d_kernel = d_kernel + jnp.stack([total(slope * z) for z in seen])
        d_bias = d_bias + total(slope)
        return (later, d_kernel, d_bias), [_adjoint(slopes, kernel, steps)], None

    none = jnp.zeros_like(x[:, :reach])
    wide = jnp.zeros_like(kernel, jnp.promote_types(x.dtype, jnp.float32))  # of sums over the parts
    carry = none, wide, wide[0]
    carry, (d_x,), _ = segments.replace(segment, carry, [upstream], reverse=True)
    later, d_kernel, d_bias = carry
    d_before = _adjoint(jnp.concatenate([none, later], axis=1), kernel, reach)
    d_bias = None if bias is None else d_bias.astype(bias.dtype)
    d_before = None if before is None else d_before
    return d_x, d_kernel.astype(kernel.dtype), d_bias, d_before


def _shifted(z, steps):
    """The parts of so many steps, from the first on."""
    return [z[:, k : k + steps] for k in range(z.shape[1] - steps + 1)]


def _adjoint(slopes, kernel, steps):
    pairs = zip(_shifted(slopes, steps)[::-1], kernel, strict=True)
    return sum(z * weight for z, weight in pairs)


_conv_silu.defvjp(_forward, _backward)
