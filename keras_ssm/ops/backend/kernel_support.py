"""What the GPU kernels share: their switch, checks of their arguments, and tile sizes."""

import os
import warnings

# The smallest side of a matrix that tensor cores take.
SMALLEST_TILE = 16


def fast_paths_enabled():
    """Whether GPU kernels may run where they were found to be right.

    Returns:
        bool. Unless `KERAS_SSM_FAST_PATHS` is `0`; the environment is read at every call.
    """
    return os.environ.get("KERAS_SSM_FAST_PATHS", "1") != "0"


def is_right(comparison, tolerance, card):
    """Whether kernels agree with the definition, and a warning if they do not.

    Args:
        comparison: function without arguments that returns their largest relative error.
        tolerance: float. The largest error with which they pass.
        card: function without arguments that returns the name of the card.

    Returns:
        bool.
    """
    try:
        error = comparison()
    except Exception as failure:  # whatever a compiler or driver may raise
        error = f"{type(failure).__name__}: {failure}"
    if isinstance(error, float) and error <= tolerance:
        return True
    warnings.warn(
        f"The GPU kernels of keras_ssm do not work on {card()}, and its portable operations take "
        f"their place. Found: {error}",
        stacklevel=3,
    )
    return False


def padded(n, least=SMALLEST_TILE):
    """The smallest power of two that is at least n and `least`."""
    return max(least, 1 << (int(n) - 1).bit_length())


def check_diagonal_scan(dA, inputs, initial):
    """Raises a `ValueError` unless the arguments of `diagonal_scan` fit each other."""
    if len(inputs.shape) < 2 or inputs.shape[-2] == 0:
        raise ValueError(
            "`inputs` must have shape (..., steps, 2 modes) with at least one step. "
            f"Received: shape {tuple(inputs.shape)}"
        )
    _check_pairs("inputs", inputs)
    *lead, steps, size = inputs.shape
    _check_shape("initial", initial, (*lead, size))
    rank = len(dA.shape)
    pairs = zip(reversed(dA.shape[:-2]), reversed(lead), strict=False)
    fits = rank >= 2 and dA.shape[-1] == size and dA.shape[-2] in (1, steps)
    if not fits or rank > len(lead) + 2 or any(n not in (1, m) for n, m in pairs):
        raise ValueError(
            "`dA` must have shape (..., steps or 1, 2 modes) and broadcast against `inputs` of "
            f"shape {tuple(inputs.shape)}. Received: shape {tuple(dA.shape)}"
        )


def _check_shape(name, array, shape):
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"`{name}` must have shape {shape}. Received: {tuple(array.shape)}")


def _check_pairs(name, array):
    if array.shape[-1] % 2 or array.shape[-1] == 0:
        raise ValueError(
            f"`{name}` must hold real parts, then imaginary parts, on its last axis. "
            f"Received: shape {tuple(array.shape)}"
        )
