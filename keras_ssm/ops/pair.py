"""Complex arithmetic on pairs `(re, im)` of real tensors.

Complex tensors train, export and compile unevenly across backends; real pairs do everywhere.
"""

from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import loops_allowed


def multiply(a, b):
    """Returns a b for two pairs of broadcastable tensors."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def conjugate(a):
    """Returns the complex conjugate of a pair."""
    return a[0], -a[1]


def scale(a, factor):
    """Returns a times a real tensor or number."""
    return a[0] * factor, a[1] * factor


def divide(a, b):
    """Returns a / b for two pairs of broadcastable tensors; b must not vanish."""
    norm = b[0] * b[0] + b[1] * b[1]
    numerator = multiply(a, conjugate(b))
    return numerator[0] / norm, numerator[1] / norm


def exp(a):
    """Returns e^a."""
    modulus = ops.exp(a[0])
    return modulus * backend.cos(a[1]), modulus * backend.sin(a[1])


def expm1(a):
    """Returns e^a - 1 without cancellation near a = 0."""
    modulus, half_sine = ops.exp(a[0]), backend.sin(0.5 * a[1])
    real = ops.expm1(a[0]) - 2.0 * modulus * half_sine * half_sine
    return real, modulus * backend.sin(a[1])


def join(a):
    """Returns one tensor with the real parts, then the imaginary parts, on the last axis."""
    return ops.concatenate([a[0], a[1]], axis=-1)


def split(x):
    """Undoes `join`: `(..., 2 modes)` to a pair of `(..., modes)`."""
    modes = x.shape[-1] // 2
    return x[..., :modes], x[..., modes:]


def rows(x):
    """Returns a joined tensor `(..., 2 modes)` as `(..., 2, modes)`."""
    return ops.reshape(x, (*ops.shape(x)[:-1], 2, x.shape[-1] // 2))


def from_rows(x):
    """Undoes `rows`."""
    return ops.reshape(x, (*ops.shape(x)[:-2], 2 * x.shape[-1]))


def multiplier(a, conjugate=False):
    """Returns the function that multiplies `(..., 2, modes)` by a, which broadcasts against it.

    Both rows are computed at once, of b read in either order. Put together by a concatenation,
    every number would ask which half it is in, and XLA's loops on a CPU would not be vectorised.
    """
    re, im = a[..., :1, :], a[..., 1:, :]
    im = im * ops.convert_to_tensor([[1.0], [-1.0]] if conjugate else [[-1.0], [1.0]], im.dtype)
    return lambda b: re * b + im * ops.flip(b, axis=-2)


def product(a, b):
    """Returns a b for two joined tensors `(..., 2 modes)`, of which a broadcasts against b."""
    # `multiplier` takes six times as long on PyTorch, and LiteRT slices no tensor of that rank.
    if not backend.uses_xla() or not loops_allowed():
        return join(multiply(split(a), split(b)))
    return from_rows(multiplier(rows(a))(rows(b)))


def sum_to(x, shape):
    """Returns x summed over the axes along which a tensor of `shape` was broadcast to it.

    Args:
        x: tensor.
        shape: tuple of int. What broadcasts to the shape of x.

    Returns:
        Tensor of `shape`.

    Example:
        ```python
        sum_to(ops.ones((4, 3, 2)), (1, 2))  # [[12, 12]]
        ```
    """
    extra = len(x.shape) - len(shape)
    # All axes at once: XLA sums the steps of a single row up to 100 times as slowly.
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1))
    x = ops.sum(x, axis=axes, keepdims=True) if axes else x
    return ops.squeeze(x, axis=tuple(range(extra))) if extra else x
