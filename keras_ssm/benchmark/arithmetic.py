"""How many floating-point operations a forward pass needs, counted from the algorithms."""

import math

from keras_ssm.benchmark.run import BLOCKS, GATED, GRIDS, KERNELS
from keras_ssm.layers.axis_layers import LONGEST_MATRIX
from keras_ssm.ops.chunks import even_chunk

# The gradient of a product A B has two products of the same size. What blocks compute a second
# time to save memory is not counted: it shows in the time.
TRAINING = 3

# Real operations of a complex product, and of a product and a sum.
PRODUCT, ADVANCE = 6, 8

# The network that makes the kernels of `Hyena`, by default.
FILTER_WIDTH, EMB_DIM = 64, 3


def count(name, method, shape):
    """Returns the operations of a forward pass as it is written, and the fewest it needs.

    A product of an (m, k) by a (k, n) matrix counts 2 m k n, a complex product 6, a real Fourier
    transform of n samples 2.5 n log2 n, exponentials nothing. With B, L, H, N the batch, length,
    features and real state size, T the chunk and M = L / T chunks, `"chunked"` is

        2 B H M T T        the response within a chunk; half of it is zeros: B H M T (T + 1)
        4 B H M T N        into the state and out of it
        4 B H M N          the state across chunks; 2 B H M N N where it is dense
        H (6 N T + 2 N T)  powers, dB and C on both sides, and the kernel of a chunk

    and, for `S4` and `SpaceTime`, H N N (2 N (log2 T + 1) + 4 T) in place of the powers:
    doublings of dA and of the columns and rows. `S5` is 2 B L H N to project, the same to read
    out, and 4 B L N for the recurrence, of which the two levels compute twice as much and more.
    `LRU` is the same with 2 N, since it keeps N complex modes. A layer that holds its kernel,
    as long as the sequence, counts the convolution alone. `H3` is an `S4D`, four projections,
    8 B L H H, and a convolution of N taps, of which two products, 4 B L H T, do the work in
    chunks. `Hyena` has two projections, 8 B L H H, three taps for each feature of the first,
    18 B L H, a convolution, and a network that makes its kernel, 2 L W (E + 2 W + H) for a width W
    of 64 and E = 3 numbers a lag. `S4ND` is `S4D` along each side, with the other one in the batch,
    or, `"auto"`, a product with a matrix of each short side n, 2 B L H n, and its kernel, 8 H N n.
    `GSS` is a `DSS` of H / 4 features between four projections, 18.5 B L H H.

    Args:
        name: str. A layer.
        method: str or `None`. Its evaluation; `None` outside the family.
        shape: tuple `(batch, length, features, state)`.

    Returns:
        Tuple of two floats, `(as written, fewest)`.

    Example:
        ```python
        count("S4D", "chunked", (8, 1024, 128, 64))  # about 4.5e8 as written
        ```
    """
    B, L, H, N = shape
    if method is None:
        return _others(name, B, L, H)
    N = 2 * N if name in ("DSS", "GSS", "LRU") else N
    if name in KERNELS:
        total = _convolution(B, L, H) if method == "fft" else 2 * B * L * L * H
        if name == "Hyena":
            total += 8 * B * L * H * H + 18 * B * L * H
            total += 2 * L * FILTER_WIDTH * (EMB_DIM + 2 * FILTER_WIDTH + H)
        return total, total
    if name in GATED:
        total, least = _siso(name, method, B, L, H, N)
        chunk = min(max(even_chunk(L), N - 1), L)
        short = _convolution(B, L, H) if method == "fft" else 4 * B * L * H * chunk
        rest = 8 * B * L * H * H
        return total + rest + short, least + rest + min(short, 2 * B * L * H * N)
    if name in BLOCKS:
        inner, wide = H // 4, 4 * H
        total, least = _siso("DSS", method, B, L, inner, N)
        rest = 2 * B * L * (H * inner + 2 * H * wide + inner * wide)
        return total + rest, least + rest
    if name in GRIDS:
        sides = math.isqrt(L), L // math.isqrt(L)
        if method == "auto" and max(sides) <= LONGEST_MATRIX:
            total = (2 * B * L + 8 * N) * H * sum(sides)
            return total, total
        passes = [_siso("S4D", method, B * L // side, side, H, N) for side in sides]
        return sum(written for written, _ in passes), sum(fewest for _, fewest in passes)
    if name.startswith("S5") or name == "LRU":
        return _s5(method, B, L, H, N)
    return _siso(name, method, B, L, H, N)


def _siso(name, method, B, L, H, N):
    dense = name in ("S4", "SpaceTime")
    if method == "recurrent":
        advance = 2 * N * N + 2 * N if name == "S4" else PRODUCT * N / 2 + 2 * N
        total = B * L * H * (advance + 2 * N)
        return total, total
    if method == "fft":
        total = _convolution(B, L, H) + (_cauchy(L, H, N) if name == "S4" else 2 * H * N * L)
        return total, total
    T = min(even_chunk(L), L)
    M = -(-L // T)
    doublings = math.ceil(math.log2(max(T, 2)))
    if dense:
        matrices = H * N * N * (2 * N * (doublings + 1) + 4 * T) + 2 * H * N * T
    else:
        matrices = 8 * H * N * T
    across = B * H * M * (2 * N * N if dense else ADVANCE * N / 2)
    rest = 4 * B * H * M * T * N + across + matrices
    return 2 * B * H * M * T * T + rest, B * H * M * T * (T + 1) + rest


def _s5(method, B, L, H, N):
    project = 4 * B * L * H * N
    if method == "fft":
        size = 1 << (2 * L - 1).bit_length()
        transforms = (2 * B + 1) * N / 2 * 5 * size * math.log2(size)
        total = project + transforms + B * N / 2 * PRODUCT * size
        return total, total
    fewest = project + ADVANCE / 2 * B * L * N
    if method == "recurrent":
        return fewest, fewest
    # Ends of the blocks first, then the states between: the recurrence twice.
    return fewest + ADVANCE / 2 * B * L * N, fewest


def _convolution(B, L, H):
    size = 1 << (2 * L - 1).bit_length()
    return (2 * B + 1) * H * 2.5 * size * math.log2(size) + B * H * PRODUCT * size / 2


def _cauchy(L, H, N):
    """Four Cauchy products of rank 1, the inverse transform, and dA^L by doublings."""
    nodes, modes = L // 2 + 1, N // 2
    products = 4 * 4 * 2 * H * nodes * modes
    return products + 2.5 * H * L * math.log2(L) + 2 * H * N**3 * 2 * math.log2(L)


def _others(name, B, L, H):
    if name == "MultiHeadAttention":
        project = 8 * B * L * H * H
        return project + 4 * B * L * L * H, project + 2 * B * L * (L + 1) * H
    gates = {"LSTM": 4, "GRU": 3}[name]
    total = 4 * gates * B * L * H * H
    return total, total
