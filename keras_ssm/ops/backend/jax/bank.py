"""Diagonal systems on an NVIDIA GPU, where the Pallas kernels were found to be right."""

import functools
import importlib
import threading

import jax
import jax.numpy as jnp
import keras

from keras_ssm.ops.backend.kernel_support import fast_paths_enabled, is_right, padded
from keras_ssm.ops.backend.walk_plan import LARGEST, MOST_MODES, states_of

# Largest error, relative to the largest entry, with which a card passes.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}

# Whether kernels run in Pallas' interpreter, on a CPU: for tests.
INTERPRETED = False

_right = {}


def fused_bank(u, bank, initial, lengths, bidirectional, return_state, D, portable):
    """Outputs and last state of `ops.chunked` by GPU kernels, or `None` where they do not apply.

    Args:
        u: array `(batch, length, features)`, float32 or shorter.
        bank: `DiagonalBank` or `DenseBank`.
        initial: array `(batch, features, states)` or `None`.
        lengths: integer array `(batch,)` or `None`.
        bidirectional: bool.
        return_state: bool.
        D: array `(channels, features)` or `None`.
        portable: `functools.partial` of `(u, bank, initial, D)` with the same result. It serves
            other devices of a program, and gradients of gradients.

    Returns:
        Tuple `(y, state)`, y in the dtype of u.
    """
    if not _applies(u, bank, initial, D):
        return None
    functions = kernels("functions")
    numbers = [tuple(pair) if pair is not None else None for pair in (bank.log_dA, bank.C, bank.dB)]

    def outputs(u, log_dA, C, dB, D, initial):
        wide, system = u.astype("float32"), type(bank)(log_dA, dB, C)
        return portable(wide, system, initial, D, lengths=None, return_state=False)[0]

    channels = bank.C[0].shape[0] // (1 + bidirectional)
    y = with_kernels(
        functools.partial(functions.outputs, bidirectional=bidirectional),
        functools.partial(functions.slopes, bidirectional=bidirectional),
        lambda *tensors: outputs(*tensors).astype(u.dtype),
        jax.ShapeDtypeStruct((*u.shape[:2], channels * u.shape[2]), u.dtype),
    )(u, *numbers, D, initial)
    if not return_state:
        return y, None

    def last(u, log_dA, dB, initial, lengths):
        C = [jnp.ones((1 + bidirectional, *part.shape), part.dtype) for part in log_dA]
        wide, system = u.astype("float32"), type(bank)(log_dA, dB, C)
        return portable(wide, system, initial, None, lengths=lengths)[1]

    steps = None if lengths is None else lengths.astype("float32")
    shape = u.shape[0], u.shape[2], 2 * bank.log_dA[0].shape[1]
    last_state = with_kernels(
        functions.last_state,
        functions.slopes_of_last_state,
        last,
        jax.ShapeDtypeStruct(shape, "float32"),
    )
    return y, last_state(u, numbers[0], numbers[2], initial, steps)


def reads_short(x):
    """Whether `fused_bank` may take a sequence of this dtype, which other operations do not."""
    return x.dtype in (jnp.bfloat16, jnp.float16) and fast_paths_enabled() and has_kernels()


def with_kernels(kernel, slopes, plain, result, keeping=None, kept=None):
    """`kernel(*tensors)` with the gradient `slopes(tensors, upstream)`.

    `plain` is the same function in portable operations: it runs where a program runs on another
    device, and gives the gradients of the gradients. `result` has the shape of what they return.
    With `keeping`, which returns this and an array like `kept`, the gradient is
    `slopes(tensors, upstream, kept)`. Without it nothing is kept but the tensors.
    """

    def plain_slopes(tensors, upstream, *kept):
        return jax.vjp(plain, *tensors)[1](upstream)

    def plain_keeping(*tensors):
        return plain(*tensors), jnp.zeros(kept.shape, kept.dtype)

    def on_device(*arguments):
        if INTERPRETED:
            return arguments[0](*arguments[3:])
        return kernels("choice").by_kernel(*arguments)

    @jax.custom_vjp
    def evaluated(*tensors):
        return on_device(kernel, plain, result, *tensors)

    @jax.custom_vjp
    def with_kept(*tensors):
        return on_device(keeping, plain_keeping, (result, kept), *tensors)

    @jax.custom_vjp
    def gradient(tensors, upstream, *kept):
        return on_device(slopes, plain_slopes, tensors, tensors, upstream, *kept)

    def forward(*tensors):
        if keeping is None:
            return evaluated(*tensors), (tensors,)
        outputs, kept = with_kept(*tensors)
        return outputs, (tensors, kept)

    def forward_with_kept(*tensors):
        outputs, kept = with_kept(*tensors)
        return (outputs, kept), (tensors, kept)

    def backward(residuals, upstream):
        return gradient(residuals[0], upstream, *residuals[1:])

    def gradient_of_gradient(residuals, upstream):
        tensors, of_outputs, *kept = residuals
        slopes = jax.vjp(plain_slopes, tensors, of_outputs)[1](upstream)
        return *slopes, *map(jnp.zeros_like, kept)

    evaluated.defvjp(forward, backward)
    with_kept.defvjp(forward_with_kept, lambda kept, upstream: backward(kept, upstream[0]))
    gradient.defvjp(lambda *operands: (gradient(*operands), operands), gradient_of_gradient)
    return evaluated


def _applies(u, bank, initial, D):
    if not fast_paths_enabled() or not has_kernels():
        return False
    if not (bank.is_diagonal and bank.normal):
        return False
    tensors = [t for t in (*bank.log_dA, *bank.C, *(bank.dB or ()), initial, D) if t is not None]
    if any(t.dtype != jnp.float32 for t in tensors) or u.dtype.name not in TOLERANCE:
        return False
    if not all(isinstance(n, int) and n > 0 for n in u.shape):
        return False
    if is_cut(u):
        return False
    modes = bank.log_dA[0].shape[-1]
    if u.size * bank.C[0].shape[0] > LARGEST or states_of(*u.shape, modes) > LARGEST:
        return False
    return ready(u.dtype.name, modes)


def is_cut(u):
    """Whether an array may lie on several devices, which XLA would gather for a kernel."""
    if keras.distribution.distribution() is not None or jax.process_count() > 1:
        return True
    meshes = [jax.sharding.get_abstract_mesh(), getattr(jax.typeof(u).sharding, "mesh", None)]
    return not all(mesh is None or mesh.empty for mesh in meshes)


@functools.cache
def _found_card():
    """Whether JAX has an NVIDIA GPU on which the kernels may be tried."""
    if jax.default_backend() != "gpu":
        return False
    card = jax.devices()[0]
    if "cuda" not in card.client.platform_version.lower():
        return False
    return float(getattr(card, "compute_capability", 0)) >= 8.0


def has_kernels():
    """Whether there are kernels, which may still turn out to be wrong."""
    return _found_card() or INTERPRETED


def ready(dtype, modes):
    """Whether the kernels of banks of so many modes are right."""
    return known_right("error_of_bank", dtype, min(MOST_MODES, padded(modes)))


def known_right(comparison, dtype, size):
    """Whether kernels are right by a function of `check`; found out at the first call.

    A program may be traced then, so the comparison runs in a thread of its own, to which no trace
    belongs.

    Args:
        comparison: string. The name of the function, of `(dtype, size)`.
        dtype: string. Data type of the sequences.
        size: int. Modes or states, filled up.
    """
    case = comparison, dtype, size
    if case not in _right:
        if INTERPRETED:
            return True
        found = []
        thread = threading.Thread(target=lambda: found.append(_is_right(*case)))
        thread.start()
        thread.join()
        _right[case] = bool(found and found[0])
    return _right[case]


def _is_right(comparison, dtype, size):
    def error():
        return getattr(kernels("check"), comparison)(dtype, size)

    return is_right(error, TOLERANCE[dtype], lambda: jax.devices()[0].device_kind)


def kernels(name):
    return importlib.import_module(f"keras_ssm.ops.backend.jax.pallas.{name}")
