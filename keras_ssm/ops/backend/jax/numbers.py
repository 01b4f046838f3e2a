"""Functions that keras.ops round to float32 on JAX, or products to TF32, as they should be."""

import jax
import jax.numpy as jnp
from jax import lax

arctan2 = jnp.arctan2
complex_of = lax.complex
cos = jnp.cos
maximum = jnp.maximum
minimum = jnp.minimum
sin = jnp.sin
tanh = jnp.tanh


def matmul(a, b):
    """The matrix product: full float32, unless `jax_default_matmul_precision` says otherwise."""
    return jnp.matmul(a, b, precision=precision())


def einsum(equation, *operands):
    """Einsum of large operands, as exact as `matmul`."""
    return jnp.einsum(equation, *operands, precision=precision())


def exact_einsum(equation, *operands):
    """Einsum that never drops to TF32 or bfloat16 passes."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)


def precision():
    """The precision of large products: the highest where the user has chosen none.

    JAX's own default is TF32 on a GPU, which is off by 3e-4 of the largest output.
    """
    chosen = jax.config.jax_default_matmul_precision
    return lax.Precision.HIGHEST if chosen is None else None


def circular(u, kernel, size):
    """Convolves on a circle, in complex numbers.

    With real and imaginary parts apart, as `keras.ops` has them, XLA's gradient took three times as
    long.
    """
    spectrum = jnp.fft.rfft(u, n=size)[:, None] * jnp.fft.rfft(kernel, n=size)
    return jnp.fft.irfft(spectrum, n=size)[..., : u.shape[-1]]


def cumsum(x, axis):
    """The sum of the entries up to each one."""
    return jnp.cumsum(x, axis=axis)


def largest(x, axis, keepdims=False):
    """The largest entry along an axis."""
    return jnp.max(x, axis=axis, keepdims=keepdims)


def mean(x, axis, keepdims=False):
    """The mean over an axis or a tuple of axes."""
    return jnp.mean(x, axis=axis, keepdims=keepdims)


def sum_of_products(a, b, axis):
    """The sum of a * b over an axis or a tuple of axes.

    As an einsum: of a product that is summed, XLA makes programs on a CPU that take up to 50 ns
    a number, depending on the shape.
    """
    axes = {axis % a.ndim} if isinstance(axis, int) else {i % a.ndim for i in axis}
    letters = "abcdefgh"[: a.ndim]
    left = "".join(letter for i, letter in enumerate(letters) if i not in axes)
    return exact_einsum(f"{letters},{letters}->{left}", a, b)
