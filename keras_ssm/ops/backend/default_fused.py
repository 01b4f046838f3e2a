"""Fast forms of operations in `keras_ssm.ops`, which most backends do not have."""


def fused_bank(u, bank, initial, lengths, bidirectional, return_state, D, portable):
    """`ops.chunked` by GPU kernels that read the sequence as it is, or `None`."""
    return None


def reads_short(x):
    """Whether `fused_bank` may take this sequence of 16 bits."""
    return False


def fused_chunks(u, T, matrices, initial, portable):
    """`ops.chunked` from the matrices of its chunks, as one function, or `None`."""
    return None


def fused_scan(dA, inputs, initial, reverse, portable):
    """`ops.scan` as one function with its own gradient, or `None`."""
    return None


def scan_states(dA, inputs, initial, reverse):
    """The states of `ops.scan`, without their gradient, or `None`."""
    return None


def fused_mimo(u, dA, dB, C, D, initial, portable):
    """`ops.mimo` as one function with its own gradient, or `None`."""
    return None


def fused_selective(x, dt, A, B, C, D, initial, portable, projection=()):
    """`ops.selective_scan` as one function with its own gradient, or `None`.

    With `projection` it is `ops.projected_scan`, whose `low` is then called dt.
    """
    return None


def fused_dual(x, dt, A, B, C, initial, chunk_size, portable):
    """`ops.ssd` without its skip as one function with its own gradient, or `None`."""
    return None


def fused_conv_silu(x, kernel, bias, before, portable):
    """The SiLU of `causal_conv` as one function with its own gradient, or `None`."""
    return None


def fused_zoh(A, B, dt, portable):
    """`ops.zoh` by a GPU kernel, or `None`."""
    return None


def fused_dplr(A, P, B, dt, portable):
    """`ops.dplr.dplr_bilinear` by a GPU kernel, or `None`."""
    return None


def toeplitz(diagonals):
    """`ops.toeplitz` by views of the backend's own, or `None`."""
    return None


def writes_in_place(x):
    """Whether programs of XLA, of the folder `in_place`, may read `(batch, length, features)`."""
    return False


def recomputed(forward, backward, portable):
    """A function of tensors, or `None`s, whose gradient computes anew what it needs.

    Args:
        forward: maps the tensors to `(outputs, kept)`, where `kept` is all that the gradient needs
            beside them.
        backward: maps `(tensors, kept, cotangents)` to the gradient of each tensor.
        portable: function of the tensors with the same outputs, for gradients of gradients.
    """
    raise NotImplementedError


def fused_layer_norm(x, gamma, beta, epsilon):
    """The layer norm of float32 over the last axis, however large x is, or `None`."""
    return None


def fused_norm(x, y, weights, epsilon, dtype, portable):
    """The sum of x and y in the dtype of x, and its norm, in one pass, or `None`.

    Args:
        x, y: tensors of one shape, y perhaps of fewer bits, or `None`: then the norm of x alone.
        weights: function without arguments that returns gamma and beta, float32 tensors
            `(features,)`. Without a beta, `None`, it is the RMS norm.
        epsilon: float.
        dtype: str. The dtype of the norm.
        portable: function of the sum, gamma and beta: the norm, for gradients of gradients.
    """
    return None
