"""The layers that every layer test runs over: a new system is one more line.

Each comes with a sequential ground truth, written from the definitions, in complex arithmetic
and differentiable.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import (
    DSS,
    LRU,
    S4,
    S4D,
    S4ND,
    S4PTD,
    S5,
    S5PTD,
    KernelLayer,
    LongConv,
    MIMOLayer,
    SGConv,
    SpaceTime,
)
from keras_ssm.layers.one_sampling_rate import OneSamplingRate
from keras_ssm.ops import backend
from keras_ssm.ops.naive import (
    convolve,
    discretize,
    naive,
    naive_dense,
    naive_mimo,
    to_complex,
)
from tests.backend_tools import BY_KERNELS, ON_GPU


def tensor(weight):
    return ops.convert_to_tensor(weight)


def as_complex(state):
    modes = state.shape[-1] // 2
    return to_complex(state[..., :modes], state[..., modes:])


def as_real(state):
    return ops.concatenate([ops.real(state), ops.imag(state)], axis=-1)


def skip_of(layer, x):
    D = tensor(layer.D)
    return ops.concatenate([x * D[c] for c in range(layer.channels)], axis=-1)


def continuous(layer):
    """dt, A and B of an S4D layer, one for each feature."""
    A = to_complex(-ops.exp(layer.log_A_real), tensor(layer.A_imag))
    B = to_complex(layer.B_real, layer.B_imag)
    repeats = (layer.features // A.shape[0], 1)
    if layer.dt_transform == "exp":
        dt = ops.exp(tensor(layer.log_dt))
    else:
        dt = ops.log1p(ops.exp(tensor(layer.inv_dt)))
    return dt * tensor(layer.step_scale), ops.tile(A, repeats), ops.tile(B, repeats)


def naive_s4d(layer, x, initial_state=None):
    dt, A, B = continuous(layer)
    dA, dB = discretize(A, B, ops.cast(dt, A.dtype), layer.discretization)
    state = None if initial_state is None else as_complex(initial_state)
    C = to_complex(layer.C_real, layer.C_imag)
    y, state = naive(x, dA, dB, C, state, layer.bidirectional)
    return y + skip_of(layer, x), as_real(state)


def naive_s4(layer, x, initial_state=None):
    """The whole matrix A - P P^H on (Re x, Im x), through a linear solve."""
    dt, A, B = continuous(layer)
    repeats = (layer.features // layer.P_real.shape[1], 1)
    a, b = ops.real(A)[..., None], ops.imag(A)[..., None]
    eye = ops.convert_to_tensor(np.eye(layer.modes), dtype=dt.dtype)
    M = ops.concatenate(
        [
            ops.concatenate([a * eye, -b * eye], axis=2),
            ops.concatenate([b * eye, a * eye], axis=2),
        ],
        axis=1,
    )
    for r in range(layer.rank):
        p = ops.concatenate([tensor(layer.P_real)[r], tensor(layer.P_imag)[r]], axis=-1)
        p = ops.tile(p, repeats)
        M = M - 2.0 * p[:, :, None] * p[:, None, :]
    step = dt[..., None]
    factor = ops.convert_to_tensor(np.eye(2 * layer.modes), dtype=dt.dtype) - 0.5 * step * M
    right = step * ops.concatenate([M, as_real(B)[..., None]], axis=2)
    solved = ops.solve(factor, right)
    C = 2.0 * ops.concatenate([tensor(layer.C_real), -tensor(layer.C_imag)], axis=-1)
    y, state = naive_dense(
        x, solved[..., :-1], solved[..., -1], C, initial_state, layer.bidirectional
    )
    return y + skip_of(layer, x), state


def dss_continuous(layer):
    """A `(modes,)`, z = dt A `(features, modes)` and C of a DSS layer."""
    if layer.variant.startswith("exp"):
        real = -ops.exp(tensor(layer.log_A_real))
    elif layer.variant.startswith("clip"):
        real = backend.minimum(tensor(layer.A_real), 1e-4)
    else:
        real = tensor(layer.A_real)
    imag = layer.log_A_imag if layer.variant == "exp-re-im" else layer.A_imag
    imag = ops.exp(tensor(imag)) if layer.variant == "exp-re-im" else tensor(imag)
    if layer.fixed_dt is None:
        dt = ops.exp(tensor(layer.log_dt))
    else:
        dt = tensor(np.full((layer.features, 1), layer.fixed_dt, layer.system_dtype))
    dt = dt * tensor(layer.step_scale)
    z = to_complex(real * dt[:, :1], imag * dt[:, -1:])
    return to_complex(real, imag), z, to_complex(layer.C_real, layer.C_imag)


def naive_dss(layer, x, initial_state=None):
    A, z, C = dss_continuous(layer)
    dA = ops.exp(z)
    dB = ops.ones_like(dA)
    if not layer.variant.endswith("no-scale"):
        dB = (dA - 1) / A
    state = None if initial_state is None else as_complex(initial_state)
    y, state = naive(x, dA, dB, C, state, layer.bidirectional, conjugates=False)
    return y + skip_of(layer, x), as_real(state)


def softmax_weights(layer, length):
    """Which modes grow, their shift to the end of the kernel, and what weighs C."""
    A, z, _ = dss_continuous(layer)
    L = layer.softmax_length or length
    grows = ops.real(A) > 0
    sign = ops.cast(ops.where(grows, -1.0, 1.0), A.dtype)
    shift = ops.cast(ops.where(grows, L - 1.0, 0.0), A.dtype)
    # As published, that shift is held fixed in the gradient.
    fixed = to_complex(ops.stop_gradient(ops.real(z)), ops.stop_gradient(ops.imag(z)))
    signed = sign * z
    numerator = ops.exp(signed) - 1
    below = (ops.exp(signed * L) - 1) * A
    guard = below * ops.conj(below) + 1e-7
    weights = numerator * (ops.conj(below) / guard)
    return fixed * shift, weights


def softmax_kernel(layer, length):
    """The row-normalised kernel by its formula, one length-long exponential per mode."""
    _, z, C = dss_continuous(layer)
    shift, weights = softmax_weights(layer, length)
    lags = ops.cast(np.arange(length), z.dtype)
    exponent = z[..., None] * lags - shift[..., None]
    terms = (C * weights)[..., None] * ops.exp(exponent)
    return ops.real(ops.sum(terms, axis=2))  # (channels, features, length)


def naive_fixed_softmax(layer, x, initial_state=None):
    """The recurrence of a softmax over a given length; B and C take half of the shift each."""
    _, z, C = dss_continuous(layer)
    shift, weights = softmax_weights(layer, layer.softmax_length)
    half = ops.exp(-0.5 * shift)
    state = None if initial_state is None else as_complex(initial_state)
    y, state = naive(
        tensor(x),
        ops.exp(z),
        weights * half,
        C * half,
        state,
        conjugates=False,
    )
    return y + skip_of(layer, x), as_real(state)


def naive_softmax(layer, x, initial_state=None):
    """The convolution with a kernel of the sequence's own length, which has no state."""
    x = tensor(x)
    y = convolve_both_ways(layer, x, softmax_kernel(layer, x.shape[1]))
    return y + skip_of(layer, x), None


def convolve_both_ways(layer, x, K):
    """The convolution with the kernel of a layer, whose second half reads backwards."""
    if not layer.bidirectional:
        return convolve(x, K)
    half = K.shape[0] // 2
    later = ops.flip(convolve(ops.flip(x, axis=1), K[half:]), axis=1)[:, 1:]
    return convolve(x, K[:half]) + ops.pad(later, [(0, 0), (0, 1), (0, 0)])


def naive_s5(layer, x, initial_state=None, timesteps=None):
    real = tensor(layer.Lambda_real)
    real = backend.minimum(real, -1e-4) if layer.clip_eigs else real
    A = to_complex(real, tensor(layer.Lambda_imag))
    dt = ops.exp(tensor(layer.log_dt)) * tensor(layer.step_scale)
    if timesteps is not None:
        dt = dt * ops.transpose(tensor(timesteps))[..., None]  # (length, batch, modes)
    dA, gain = discretize(A, ops.ones_like(A), ops.cast(dt, A.dtype), layer.discretization)
    B = to_complex(layer.B_real, layer.B_imag)
    C = to_complex(layer.C_real, layer.C_imag)
    dB = gain[..., None] * B
    state = None if initial_state is None else as_complex(initial_state)
    real = {"conjugates": layer.conj_sym}
    y, state = naive_mimo(x, dA, dB, C[0], state, **real)
    if layer.bidirectional:
        y = y + naive_mimo(x, dA, dB, C[1], reverse=True, **real)[0]
    return y + x * tensor(layer.D), as_real(state)


def naive_lru(layer, x, initial_state=None):
    """The recurrence as published; a step r times as long has |1 - dA^r| / |1 - dA| the gain."""
    log_lambda = to_complex(-ops.exp(layer.nu_log), ops.exp(layer.theta_log))
    dA = ops.exp(log_lambda * ops.cast(tensor(layer.step_scale), log_lambda.dtype))
    gain = ops.exp(tensor(layer.gamma_log)) * ops.abs(1 - dA) / ops.abs(1 - ops.exp(log_lambda))
    dB = ops.cast(gain, dA.dtype)[:, None] * to_complex(layer.B_real, layer.B_imag)
    C = to_complex(layer.C_real, layer.C_imag)
    C = C if layer.bidirectional else C[None]
    state = None if initial_state is None else as_complex(initial_state)
    y, state = naive_mimo(x, dA, dB, C[0], state, conjugates=False)
    if layer.bidirectional:
        y = y + naive_mimo(x, dA, dB, C[1], reverse=True, conjugates=False)[0]
    return y + x * tensor(layer.D), as_real(state)


def with_kernel(make_kernel):
    """The ground truth of a layer with such a kernel, whose state is the last inputs."""

    def reference(layer, x, initial_state=None):
        x, K = tensor(x), make_kernel(layer)
        count = K.shape[-1] - 1
        before = ops.repeat(0.0 * x[:, 0, :, None], count, axis=-1)
        before = before if initial_state is None else tensor(initial_state)
        whole = ops.concatenate([ops.transpose(before, (0, 2, 1)), x], axis=1)
        K = ops.pad(K, [(0, 0), (0, 0), (0, x.shape[1] - 1)])  # as long as all of these
        y = convolve_both_ways(layer, whole, K)[:, count:]
        return y + skip_of(layer, x), ops.transpose(whole[:, x.shape[1] :], (0, 2, 1))

    return reference


def long_conv_kernel(layer):
    K, n = tensor(layer.entries), layer.max_length
    if layer.smoothing is not None:
        near = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= layer.smoothing // 2
        K = backend.einsum(
            "phk,kl->phl", K, tensor((near / layer.smoothing).astype(layer.system_dtype))
        )
    size = ops.abs(K) - layer.squash
    return ops.where(size > 0, ops.sign(K) * size, ops.zeros_like(K))


def sg_conv_kernel(layer):
    """Each piece through a matrix of interpolation, at its place."""
    pieces, d, total = tensor(layer.pieces), layer.kernel_dim, layer.kernel_length
    decay, start, K = np.linspace(layer.decay_min, layer.decay_max, layer.features), 0, 0.0
    first = int(np.log2(total // d)) + 1 - layer.scales
    for i in range(layer.scales):
        joined = layer.composition == "concat"
        f = 2 ** (first + (max(0, i - 1) if joined else i))
        places = (np.arange(d * f) + 0.5) / f - 0.5
        if layer.interpolation == "nearest":
            places = np.repeat(np.arange(d), f)
        M = np.stack([np.interp(places, np.arange(d), row) for row in np.eye(d)])
        M = np.pad(M, [(0, 0), (start, total - start - d * f)])
        gain = 1.0 if layer.learnable_decay else decay ** (layer.scales - 1 - i)
        M = (M * np.reshape(gain, (-1, 1, 1))).astype(layer.system_dtype)
        M = M if len(M) > 1 else np.repeat(M, layer.features, axis=0)
        K = K + backend.einsum("phd,hdl->phl", pieces[i], tensor(M))
        start += d * f if joined else 0
    if layer.learnable_decay:
        lags = tensor(np.arange(1, total + 1).astype(layer.system_dtype))
        K = K * lags ** (-tensor(layer.decay)[:, None])
    return K / tensor(layer.kernel_norm)[..., None]


def naive_s4nd(layer, x, initial_state=None):
    """Of one axis: the mean of its systems, and the skip."""
    (one,) = layer.axis_layers
    dt, A, B = continuous(one)
    dA, dB = discretize(A, B, ops.cast(dt, A.dtype), one.discretization)
    state = None if initial_state is None else as_complex(initial_state)
    C = to_complex(one.C_real, one.C_imag)
    y, state = naive(x, dA, dB, C, state)
    y = sum(ops.split(y, layer.rank, axis=-1)) / layer.rank
    return y + skip_of(layer, x), as_real(state)


def naive_space_time(layer, x, initial_state=None):
    """The recurrence with whole matrices."""
    a, heads = tensor(layer.a), layer.features // layer.copies
    p = layer.norm_order
    a = a / ops.sum(ops.abs(a) ** p, axis=-1, keepdims=True) ** (1 / p)
    edge = np.eye(layer.state_dim)[-1].astype(layer.system_dtype)
    A = a[..., None] * tensor(edge) + tensor(np.eye(layer.state_dim, k=-1).astype(edge.dtype))
    E = A - tensor(np.eye(layer.state_dim).astype(edge.dtype))
    E, B = (ops.repeat(part, heads, axis=0) for part in (E, tensor(layer.B)))
    C = ops.repeat(tensor(layer.C), heads, axis=1)
    y, state = naive_dense(x, E, B, C, initial_state, layer.bidirectional)
    return y + skip_of(layer, x), state


class Case:
    """A layer, its sequential ground truth, and what it can do.

    `tolerance` is that of values; systems that lose digits by their nature have a larger one.
    `undamped` ones lose them in the float32 gradients of a long frequency-domain kernel (1.7e-3 of
    log_dt at 257 steps; 1e-8 in float64): its values are compared, those gradients are not.
    """

    def __init__(self, name, cls, reference, tolerance=1e-5, undamped=False, **arguments):
        self.name, self.cls, self.reference = name, cls, reference
        self.undamped = undamped
        self.holds_kernel = issubclass(cls, KernelLayer)
        self.has_step = not issubclass(cls, OneSamplingRate)
        size = {} if self.holds_kernel else {"state_dim": 8}
        self.arguments = {**size, "seed": 1, **arguments}
        by_kernels = ON_GPU and issubclass(cls, (S4D, DSS, S4ND))
        self.tolerance = max(tolerance, BY_KERNELS) if by_kernels else tolerance

    def make(self, features=4, **arguments):
        arguments = {**self.arguments, **arguments}
        if self.holds_kernel:
            arguments.pop("chunk_size", None)  # there are no chunks
        layer = self.cls(**arguments)
        layer.build((None, None, features))
        return layer

    @property
    def has_state(self):
        return not self.arguments.get("bidirectional") and not self.normalises_by_length

    @property
    def normalises_by_length(self):
        """Whether the kernel depends on the length of the sequence."""
        softmax = self.cls is DSS and self.arguments.get("variant", "softmax") == "softmax"
        return softmax and "softmax_length" not in self.arguments

    @property
    def has_kernel(self):
        return not issubclass(self.cls, MIMOLayer)

    @property
    def methods(self):
        one_way = not self.arguments.get("bidirectional")
        first = ["fft", "direct"] if self.holds_kernel else ["chunked", "fft"]
        return first + (["recurrent"] if one_way else [])

    def __repr__(self):
        return self.name


LONG = {"max_length": 40, "init": "double_exp", "squash": 0.002}

# One layer of each system.
SYSTEMS = [
    Case("s4d", S4D, naive_s4d),
    Case("s4", S4, naive_s4),
    Case("dss", DSS, naive_softmax, tolerance=5e-5),
    Case("dss_exp", DSS, naive_dss, tolerance=5e-5, variant="exp"),
    Case("s5", S5, naive_s5),
    Case("s4ptd", S4PTD, naive_s4d),
    Case("s5ptd", S5PTD, naive_s5, blocks=1),
    Case("lru", LRU, naive_lru),
    Case("long_conv", LongConv, with_kernel(long_conv_kernel), **LONG),
    Case("sg_conv", SGConv, with_kernel(sg_conv_kernel), max_length=40, kernel_dim=8),
    Case("space_time", SpaceTime, naive_space_time),
]

OWN_OPERATIONS = [case for case in SYSTEMS if case.name in ("s4d", "s4", "dss", "s5", "sg_conv")]

# Their options.
VARIANTS = [
    Case("s4d_bilinear", S4D, naive_s4d, discretization="bilinear", init="lin"),
    Case("s4d_shared", S4D, naive_s4d, channels=2, num_ssm=2, dt_tie=False, init="inv"),
    Case("s4d_bidirectional", S4D, naive_s4d, bidirectional=True, chunk_size=16),
    Case("s4d_softplus", S4D, naive_s4d, dt_transform="softplus"),
    Case("s4_rank2", S4, naive_s4, init="inv", rank=2, num_ssm=2, channels=2),
    # Undamped: near its resonances the frequency-domain kernel loses digits.
    Case("s4_legt", S4, naive_s4, tolerance=5e-5, undamped=True, init="legt", rank=2),
    Case("s4_rank3", S4, naive_s4, init="lin", rank=3, dt_transform="softplus"),
    Case("s4_bidirectional", S4, naive_s4, bidirectional=True, chunk_size=16),
    Case("dss_growing", DSS, naive_softmax, 5e-5, init="randn", channels=2, chunk_size=16),
    Case("dss_bidirectional", DSS, naive_softmax, 5e-5, bidirectional=True, init="randn"),
    Case("dss_fixed", DSS, naive_fixed_softmax, 5e-5, softmax_length=1200, init="randn"),
    Case("dss_one_dt", DSS, naive_dss, 5e-5, variant="clip", sep_dt_re_im=False),
    Case("dss_re_im", DSS, naive_dss, 5e-5, variant="exp-re-im"),
    Case("dss_gss", DSS, naive_dss, 5e-5, variant="exp-re-im", init="log_normal", fixed_dt=1.0),
    Case("dss_no_scale", DSS, naive_dss, 5e-5, variant="exp-no-scale", bidirectional=True),
    Case("s5_blocks", S5, naive_s5, blocks=2, discretization="bilinear", clip_eigs=True),
    Case("s5_complex", S5, naive_s5, conj_sym=False, c_init="trunc_standard_normal"),
    Case("s5_bidirectional", S5, naive_s5, bidirectional=True, c_init="complex_normal"),
    Case("s4ptd_rank1", S4PTD, naive_s4d, perturbation="rank1", bidirectional=True),
    Case("s4ptd_all_modes", S4PTD, naive_s4d, state_dim=2),
    Case("lru_bidirectional", LRU, naive_lru, bidirectional=True, r_min=0.9, max_phase=0.6),
    Case(
        "long_conv_smooth",
        LongConv,
        with_kernel(long_conv_kernel),
        **LONG,
        smoothing=5,
        channels=2,
        bidirectional=True,
    ),
    Case(
        "sg_conv_sum",
        SGConv,
        with_kernel(sg_conv_kernel),
        max_length=40,
        kernel_dim=8,
        num_scales=3,
        decay_min=1.5,
        composition="sum",
        interpolation="nearest",
        channels=2,
    ),
    Case(
        "sg_conv_learnable",
        SGConv,
        with_kernel(sg_conv_kernel),
        max_length=32,
        kernel_dim=8,
        decay_min=0.5,
        learnable_decay=True,
        bidirectional=True,
    ),
    Case("s4nd_one_axis", S4ND, naive_s4nd, axes=1, rank=2, channels=2, bidirectional=False),
    Case("space_time_shared", SpaceTime, naive_space_time, num_ssm=2, channels=2),
    Case("space_time_bidirectional", SpaceTime, naive_space_time, num_ssm=2, bidirectional=True),
    Case("s5ptd_complex", S5PTD, naive_s5, conj_sym=False, perturbation="rank1"),
]

CASES = SYSTEMS + VARIANTS


def mark(case, central=False):
    """The marks of the tests of a case.

    PyTorch compiles nothing and runs them all, for every system and option. The others run all
    of them for the first system and the central ones for each that has operations of its own;
    the rest is `make test-all`.
    """
    each_time = keras.config.backend() == "torch" or case is SYSTEMS[0]
    return [] if each_time or (central and case in OWN_OPERATIONS) else [pytest.mark.slow]


def cases(condition=lambda case: True, central=False):
    """Parameters: the cases that satisfy a condition."""
    return [pytest.param(case, marks=mark(case, central)) for case in CASES if condition(case)]


def cases_and_methods(known_length=True):
    """Parameters: every case with every evaluation that it has.

    A softmax over a length that is not known has no recurrence.
    """
    pairs = [
        (case, method)
        for case in CASES
        for method in case.methods
        if known_length or not (case.normalises_by_length and method == "recurrent")
    ]
    return [pytest.param(*pair, marks=mark(pair[0], pair[1] == "chunked")) for pair in pairs]
