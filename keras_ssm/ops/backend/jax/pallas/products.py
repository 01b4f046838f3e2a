"""Products of batches of small matrices inside Pallas kernels, and numbers as two bfloat16.

Triton multiplies batches of matrices, one feature a warp, without moving a number from a warp to
another. `lax.dot_general` is lowered to it for single matrices only, so the batched product is an
operation of its own here.
"""

import jax.numpy as jnp
from jax import lax
from jax._src.pallas.triton import lowering as triton_lowering
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxlib.triton import dialect as triton_dialect

batched_product = Primitive("keras_ssm_batched_product")


@batched_product.def_abstract_eval
def _shape_of_product(a, b, total):
    if a.dtype != b.dtype or (*a.shape[:-1], b.shape[-1]) != total.shape:
        raise ValueError(f"Products of {a} and {b} added to {total}")
    return total.update(weak_type=False)


@batched_product.def_impl
def _product(a, b, total):
    return total + jnp.einsum("bmk,bkn->bmn", a, b, preferred_element_type=total.dtype)


# Where kernels are interpreted.
mlir.register_lowering(batched_product, mlir.lower_fun(_product, multiple_results=False))


@triton_lowering.register_lowering(batched_product)
def _by_triton(ctx, a, b, total):
    return triton_dialect.dot(a, b, total)


def upper_half(x):
    """x rounded to bfloat16, as float32: cards convert single numbers slowly, and pairs fast."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    return lax.bitcast_convert_type((bits + 0x8000) & -65536, jnp.float32)


def halves(x):
    """x as the sum of two bfloat16 numbers."""
    upper = upper_half(x)
    return upper.astype(jnp.bfloat16), (x - upper).astype(jnp.bfloat16)


def plus_product(total, a, b, exact):
    """total + a b, for both halves of b; unless `exact`, a and b count as bfloat16."""
    hi, lo = b
    if not exact:
        return batched_product.bind(a.astype(jnp.bfloat16), hi, total)
    upper, lower = halves(a)
    total = batched_product.bind(upper, hi, total)
    total = batched_product.bind(upper, lo, total)
    return batched_product.bind(lower, hi, total)


def turned(ar, ai, xr, xi):
    """The product of the complex numbers a and x."""
    return ar * xr - ai * xi, ar * xi + ai * xr


def folded(x):
    """The upper half of the rows added to the lower one: a thread has both in its registers."""
    B, M, N = x.shape
    return jnp.sum(x.reshape(B, 2, M // 2, N), axis=1)


def for_parts(x, parts):
    """Numbers `(rows, T, features)` for each part of the modes, `(features * parts, rows, T)`."""
    x = jnp.transpose(x, (2, 0, 1))
    if parts == 1:
        return x
    B, M, T = x.shape
    return jnp.broadcast_to(x[:, None], (B, parts, M, T)).reshape(B * parts, M, T)


def of_parts(x, parts):
    """The sums over the parts of the modes, `(rows, T, features)`."""
    x = jnp.transpose(x, (1, 2, 0))
    while parts > 1:
        M, T, B = x.shape
        left, right = jnp.split(x.reshape(M, T, B // 2, 2), 2, axis=-1)
        x = (left + right).reshape(M, T, B // 2)
        parts //= 2
    return x
