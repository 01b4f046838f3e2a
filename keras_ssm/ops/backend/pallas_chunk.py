"""The chunk step of a diagonal bank as one Pallas kernel. Not measured on a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams

from keras_ssm.ops.backend.kernel_shapes import padded, slice_width


def _product(a, b, precision, interpret):
    if precision == "float32":
        return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
    if interpret:  # the interpreter has no TF32: round to its 10 mantissa bits
        a, b = lax.reduce_precision(a, 8, 10), lax.reduce_precision(b, 8, 10)
        return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
    return jnp.dot(a, b, precision=lax.Precision.HIGH)


def _chunk_kernel(
    u, response, E_in, transition, E_out, y, states, *, reverse, precision, interpret
):
    """One feature and batch tile; the operands have no feature axis."""
    rows, chunks, T = u.shape
    width = slice_width(precision)
    dot = partial(_product, precision=precision, interpret=interpret)
    a_re, a_im = transition[0, :][None, :], transition[1, :][None, :]

    def one_chunk(step, state):
        re, im = state
        chunk = chunks - 1 - step if reverse else step
        states[:, chunk, 0, :] = re
        states[:, chunk, 1, :] = im
        total = dot(re, E_out[0, :, :]) + dot(im, E_out[1, :, :])

        def one_slice(k, sums):
            total, re, im = sums
            at = pl.ds(k * width, width)
            part = u[:, chunk, at]
            total += dot(part, response[at, :])
            return total, re + dot(part, E_in[0, at, :]), im + dot(part, E_in[1, at, :])

        moved = a_re * re - a_im * im, a_re * im + a_im * re
        total, re, im = lax.fori_loop(0, T // width, one_slice, (total, *moved))
        y[:, chunk, :] = total
        return re, im

    zero = jnp.zeros((rows, transition.shape[-1]), jnp.float32)
    lax.fori_loop(0, chunks, one_chunk, (zero, zero))


def _run(reverse, precision, interpret, u, response, E_in, transition, E_out):
    """Outputs, and the state that reads out in each chunk, of padded operands."""
    features, batch, chunks, T = u.shape
    modes = transition.shape[-1]
    tile = min(batch, 16 if precision == "float32" else 32)
    weights = [
        pl.BlockSpec((None, *w.shape[1:]), lambda h, b, n=w.ndim - 1: (h, *(0,) * n))
        for w in (response, E_in, transition, E_out)
    ]
    sequence = pl.BlockSpec((None, tile, chunks, T), lambda h, b: (h, b, 0, 0))
    return pl.pallas_call(
        partial(_chunk_kernel, reverse=reverse, precision=precision, interpret=interpret),
        grid=(features, batch // tile),
        in_specs=[sequence, *weights],
        out_specs=[
            sequence,
            pl.BlockSpec((None, tile, chunks, 2, modes), lambda h, b: (h, b, 0, 0, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(u.shape, u.dtype),
            jax.ShapeDtypeStruct((features, batch, chunks, 2, modes), u.dtype),
        ],
        compiler_params=CompilerParams(num_warps=8, num_stages=2),
        interpret=interpret,
    )(u, response, E_in, transition, E_out)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _padded_pass(precision, interpret, *operands):
    return _run(False, precision, interpret, *operands)[0]


def _forward(precision, interpret, *operands):
    y, states = _run(False, precision, interpret, *operands)
    return y, (operands, states)


def _backward(precision, interpret, saved, dy):
    """The same kernel, backwards, on transposed matrices."""
    (u, response, E_in, transition, E_out), states = saved
    conjugate = transition * jnp.array([[1.0], [-1.0]], transition.dtype)
    # `later` is the adjoint of the state after each chunk.
    transposed = (jnp.swapaxes(response, 1, 2), jnp.swapaxes(E_out, 2, 3))
    transposed += (conjugate, jnp.swapaxes(E_in, 2, 3))
    du, later = _run(True, precision, interpret, dy, *transposed)
    exact = precision == "float32"
    einsum = partial(
        jnp.einsum, precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT
    )
    d_response = einsum("hbmi,hbmj->hij", u, dy)
    d_E_in = einsum("hbmi,hbmpn->hpin", u, later)
    d_E_out = einsum("hbmpn,hbmi->hpni", states, dy)
    (re, im), (d_re, d_im) = jnp.moveaxis(states, 3, 0), jnp.moveaxis(later, 3, 0)
    d_transition = jnp.stack([re * d_re + im * d_im, re * d_im - im * d_re], axis=3)
    return du, d_response, d_E_in, jnp.sum(d_transition, axis=(1, 2)), d_E_out


_padded_pass.defvjp(_forward, _backward)


def chunk_pass(x, response, E_in, transition, E_out, precision, interpret):
    """`pallas_kernels.chunk_pass` of checked arguments."""
    batch, length, features = x.shape
    T, modes = response.shape[1], transition.shape[1] // 2
    chunks = -(-length // T)
    more_T = max(padded(T), slice_width(precision)) - T
    more_modes, more_batch = padded(modes) - modes, padded(batch) - batch
    if batch > 32:
        more_batch = -batch % 32

    u = jnp.pad(x, [(0, 0), (0, chunks * T - length), (0, 0)])
    u = jnp.transpose(u.reshape(batch, chunks, T, features), (3, 0, 1, 2))
    u = jnp.pad(u, [(0, 0), (0, more_batch), (0, 0), (0, more_T)])
    response = jnp.pad(response, [(0, 0), (0, more_T), (0, more_T)])
    E_in = jnp.swapaxes(E_in.reshape(features, T, 2, modes), 1, 2)
    E_in = jnp.pad(E_in, [(0, 0), (0, 0), (0, more_T), (0, more_modes)])
    E_out = E_out.reshape(features, 2, modes, T)
    E_out = jnp.pad(E_out, [(0, 0), (0, 0), (0, more_modes), (0, more_T)])
    transition = jnp.pad(transition.reshape(features, 2, modes), [(0, 0), (0, 0), (0, more_modes)])
    y = _padded_pass(precision, interpret, u, response, E_in, transition, E_out)
    y = jnp.transpose(y[:, :batch, :, :T], (1, 2, 3, 0))
    return y.reshape(batch, chunks * T, features)[:, :length]
