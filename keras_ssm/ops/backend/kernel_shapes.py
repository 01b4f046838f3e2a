"""What the GPU kernels of all backends share: checks of their arguments, and tile sizes."""

PRECISIONS = ("float32", "tf32")

# The smallest side of a matrix that tensor cores take.
SMALLEST_TILE = 16

# The outputs and states of a batch tile stay in registers: larger ones would spill.
LARGEST_CHUNK = 128
LARGEST_STATE = 128

OPERATIONS = ("chunk_pass", "diagonal_scan")


def padded(n, least=SMALLEST_TILE):
    """The smallest power of two that is at least n and `least`."""
    return max(least, 1 << (int(n) - 1).bit_length())


def slice_width(precision):
    """Steps of a chunk multiplied at a time.

    Products without tensor cores hold their whole operands in registers, hence the thinner slice.
    """
    return 16 if precision == "float32" else 32


def check_chunk_pass(x, response, E_in, transition, E_out, precision):
    """Raises a `ValueError` unless the arguments of `chunk_pass` fit each other."""
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {PRECISIONS}. Received: {precision!r}")
    _check_rank("x", x, 3, "(batch, length, features)")
    _check_rank("response", response, 3, "(features, T, T)")
    _check_rank("transition", transition, 2, "(features, 2 modes)")
    features, T, N = x.shape[2], response.shape[1], transition.shape[1]
    _check_shape("response", response, (features, T, T))
    _check_shape("E_in", E_in, (features, T, N))
    _check_shape("transition", transition, (features, N))
    _check_shape("E_out", E_out, (features, N, T))
    _check_pairs("transition", transition)
    if x.shape[1] == 0:
        raise ValueError(f"`x` must have at least one step. Received: shape {tuple(x.shape)}")


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


def fits(operation, arrays):
    """Whether a kernel takes arrays of these shapes and data types.

    Args:
        operation: `"chunk_pass"` or `"diagonal_scan"`.
        arrays: the array arguments of that function, in its order.

    Returns:
        bool.

    Raises:
        ValueError: if `operation` is unknown.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"`operation` must be one of {OPERATIONS}. Received: {operation!r}")
    sizes = [n for array in arrays for n in array.shape]
    if not all(isinstance(n, int) and n > 0 for n in sizes):
        return False
    if any(str(array.dtype).removeprefix("torch.") != "float32" for array in arrays):
        return False
    if operation == "diagonal_scan":
        return True
    _, response, _, transition, _ = arrays
    return response.shape[1] <= LARGEST_CHUNK and transition.shape[1] <= LARGEST_STATE


def plain(u, T, matrices, initial, return_state):
    """Whether a chunked evaluation is what the kernels compute, but for sizes and data types.

    That is one direction, one channel, diagonal, from a zero state, in whole chunks, without the
    last state.
    """
    if initial or return_state or len(matrices) != 4 or len(matrices[1].shape) != 2:
        return False
    return matrices[0].shape[2] == T and u.shape[1] is not None and u.shape[1] % T == 0


def _check_rank(name, array, rank, meaning):
    if len(array.shape) != rank:
        raise ValueError(f"`{name}` must have shape {meaning}. Received: {tuple(array.shape)}")


def _check_shape(name, array, shape):
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"`{name}` must have shape {shape}. Received: {tuple(array.shape)}")


def _check_pairs(name, array):
    if array.shape[-1] % 2 or array.shape[-1] == 0:
        raise ValueError(
            f"`{name}` must hold real parts, then imaginary parts, on its last axis. "
            f"Received: shape {tuple(array.shape)}"
        )
