"""A short causal convolution and its SiLU, which keep their input alone.

The gradient computes both again, some steps at a time: of a whole sequence XLA would see that they
have been computed before, and keep them.
"""

from keras import ops
from keras.backend import standardize_dtype

from keras_ssm.ops import backend
from keras_ssm.ops.backend.in_place.segments import Segments, some_steps, steps_together


def fused_conv_silu(x, kernel, bias, before, portable):
    """The SiLU of `causal_conv` on a CPU, by loops in place; `None` for short sequences."""
    x = ops.cast(x, kernel.dtype)
    mixed = any(z is not None and z.dtype != x.dtype for z in (bias, before))
    if mixed or not backend.writes_in_place(x) or _steps(x, kernel) >= x.shape[1]:
        return None
    return backend.recomputed(_forward, _backward, portable)(x, kernel, bias, before)


def _forward(x, kernel, bias, before):
    segments, window = _windows(x, kernel, before)

    def segment(carry, i, parts):
        return carry, [ops.silu(_convolved(window(i), kernel, bias))], None

    return segments.replace(segment, (), [x])[1][0], ()


def _steps(x, kernel):
    return max(kernel.shape[0], steps_together(x))


def _windows(x, kernel, before):
    """Segments, and a function that reads what each entry of the kernel multiplies in one."""
    steps, reach = _steps(x, kernel), kernel.shape[0] - 1
    segments = Segments(x.shape[1], steps)
    first = ops.zeros_like(x[:, :reach]) if before is None else before
    first = ops.concatenate([first, x[:, :reach]], axis=1)

    def window(i):
        start = segments.start(i)
        # Of a start out of reach a slice takes the nearest one, also where it is not asked for.
        seen = ops.where(
            start < reach,
            some_steps(first, ops.minimum(start, reach), reach),
            some_steps(x, ops.maximum(start - reach, 0), reach),
        )
        return _shifted(ops.concatenate([seen, *segments.read([x], i)], axis=1), steps)

    return segments, window


def _convolved(window, kernel, bias):
    y = sum(z * kernel[k] for k, z in enumerate(window))
    return y if bias is None else y + bias


def _backward(tensors, kept, upstream):
    """From the last segment to the first, which needs the first slopes of the one behind it."""
    x, kernel, bias, before = tensors
    segments, window = _windows(x, kernel, before)
    steps, reach = segments.steps, kernel.shape[0] - 1

    def segment(carry, i, parts):
        later, d_kernel, d_bias = carry
        seen = window(i)
        y = _convolved(seen, kernel, bias)
        share = ops.sigmoid(y)
        slope = segments.new(parts[0] * share * (1 + y * (1 - share)), i)
        slopes = ops.concatenate([slope, later], axis=1)
        later = some_steps(slopes, i * steps - segments.start(i), reach)
        total = lambda z: ops.sum(ops.cast(z, d_bias.dtype), axis=(0, 1))
        d_kernel = d_kernel + ops.stack([total(slope * z) for z in seen])
        d_bias = d_bias + total(slope)
        return (later, d_kernel, d_bias), [_adjoint(slopes, kernel, steps)], None

    none = ops.zeros_like(x[:, :reach])
    # Hundreds of parts are added: sixteen bits would lose most of them.
    short = standardize_dtype(x.dtype) in ("float16", "bfloat16")
    wide = ops.zeros_like(kernel, dtype="float32" if short else None)
    carry = none, wide, wide[0]
    carry, (d_x,), _ = segments.replace(segment, carry, [upstream], reverse=True)
    later, d_kernel, d_bias = carry
    d_before = _adjoint(ops.concatenate([none, later], axis=1), kernel, reach)
    d_bias = None if bias is None else ops.cast(d_bias, bias.dtype)
    d_before = None if before is None else d_before
    return d_x, ops.cast(d_kernel, kernel.dtype), d_bias, d_before


def _shifted(z, steps):
    """The parts of so many steps, from the first on."""
    return [z[:, k : k + steps] for k in range(z.shape[1] - steps + 1)]


def _adjoint(slopes, kernel, steps):
    parts = _shifted(slopes, steps)[::-1]
    return sum(z * kernel[k] for k, z in enumerate(parts))
