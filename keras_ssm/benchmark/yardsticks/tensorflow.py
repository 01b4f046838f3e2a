"""The published formulations on TensorFlow."""

import math

import tensorflow as tf

from keras_ssm.benchmark.yardsticks.scan import associative_scan


def s4d(w, u):
    """S4D: K[l] = 2 Re sum C B (e^(dt A) - 1) / A e^(dt A l), and a Fourier transform."""
    A = tf.complex(-tf.exp(w["log_A_real"]), w["A_imag"])
    z = A * _real(tf.exp(w["log_dt"]))
    C = _complex(w, "C") * _complex(w, "B") * (tf.exp(z) - 1) / A
    return _convolve(u, 2 * tf.math.real(_vandermonde(C, z, u.shape[-1])), w["D"])


def dss(w, u):
    """DSS with the exp kernel: N complex modes, none of them a conjugate of another."""
    dt = tf.exp(w["log_dt"])
    A = tf.complex(-tf.exp(w["log_A_real"]), w["A_imag"])
    z = tf.complex(tf.math.real(A) * dt[:, :1], tf.math.imag(A) * dt[:, -1:])
    C = _complex(w, "C") * (tf.exp(z) - 1) / A
    return _convolve(u, tf.math.real(_vandermonde(C, z, u.shape[-1])), w["D"])


def s4(w, u):
    """S4: the generating function of a diagonal plus low rank system at the roots of unity."""
    L = u.shape[-1]
    dt = _real(tf.exp(w["log_dt"]))
    A = tf.complex(-tf.exp(w["log_A_real"]), w["A_imag"]) * dt
    P, B, C = (_complex(w, key) for key in ("P", "B", "C"))
    # Nodes a little inside -1, at which the bilinear transform has its pole.
    angle = -2 * math.pi * tf.range(L // 2 + 1, dtype=u.dtype) / L
    omega = tf.exp(tf.complex(0.0, angle))
    omega = tf.where(tf.abs(omega + 1) < 1e-6, omega + 1e-6, omega)
    z = 2 * (1 - omega) / (1 + omega)
    left = tf.concat([C, tf.math.conj(P)], axis=0)  # (1 + rank, features, modes)
    right = tf.concat([B[None], P], axis=0)
    v = left[:, None] * right[None] * dt
    cauchy = v[..., None] / (z - A[..., None])
    mirrored = tf.math.conj(v)[..., None] / (z - tf.math.conj(A)[..., None])
    k = tf.reduce_sum(cauchy + mirrored, axis=-2)
    K = k[0, 0] - k[0, 1] * k[1, 0] / (1 + k[1, 1])
    K = tf.signal.irfft(K * 2 / (1 + omega), fft_length=[L])
    return _convolve(u, K, w["D"])


def s5(w, u):
    """S5: a complex associative scan over the samples."""
    Lambda = tf.complex(w["Lambda_real"], w["Lambda_imag"])
    dA = tf.exp(Lambda * _real(tf.exp(w["log_dt"])))
    dB = ((dA - 1) / Lambda)[:, None] * _complex(w, "B")
    return 2 * _scanned(u, dA, dB, _complex(w, "C")[0]) + u * w["D"]


def lru(w, u):
    """LRU: the same scan, of eigenvalues inside the unit circle and normalised inputs."""
    dA = tf.exp(tf.complex(-tf.exp(w["nu_log"]), tf.exp(w["theta_log"])))
    dB = _real(tf.exp(w["gamma_log"]))[:, None] * _complex(w, "B")
    return _scanned(u, dA, dB, _complex(w, "C")) + u * w["D"]


def spacetime(w, u):
    """SpaceTime: the powers of a companion matrix by doubling, and a Fourier transform."""
    a, L = w["a"], u.shape[-1]
    a = a / tf.reduce_sum(tf.abs(a), axis=-1, keepdims=True)
    states = a.shape[-1]
    shift = tf.linalg.diag(tf.ones(states - 1), k=-1)
    A = shift + tf.pad(a[..., None], [(0, 0), (0, 0), (states - 1, 0)])
    x = w["B"][..., None]  # the columns A^l B
    while x.shape[-1] < L:
        x = tf.concat([x, A @ x[..., : L - x.shape[-1]]], axis=-1)
        A = A @ A if x.shape[-1] < L else A
    return _convolve(u, tf.einsum("hnl,hn->hl", x, w["C"][0]), w["D"])


def sgconv(w, u):
    """SGConv: pieces stretched one after the other, and a Fourier transform."""
    parts, scales = [], w["kernel"].shape[0]
    for i in range(scales):
        piece = w["kernel"][i, 0] * 2.0 ** (scales - 1 - i)
        size = piece.shape[-1] * 2 ** max(0, i - 1)
        image = tf.image.resize(piece[None, ..., None], (piece.shape[0], size))
        parts.append(image[0, ..., 0])
    K = tf.concat(parts, axis=-1)
    # Fixed, as at the first step of training.
    K = K / tf.stop_gradient(tf.norm(K, axis=-1, keepdims=True))
    return _convolve(u, K[:, : u.shape[-1]], w["D"])


def longconv(w, u):
    """A long convolution: free entries, squashed, and a Fourier transform."""
    K = tf.nn.relu(tf.abs(w["kernel"]) - 0.003) * tf.sign(w["kernel"])
    return _convolve(u, K[0, :, : u.shape[-1]], w["D"])


def h3(w, u):
    """H3: two convolutions by Fourier transforms, between projections that multiply."""
    q, k, v = (_projected(w, name, u) for name in ("q_dense", "k_dense", "v_dense"))
    taps = w["shift_B"].shape[1]
    B, C = (tf.signal.rfft(w[key], [2 * taps]) for key in ("shift_B", "shift_C"))
    K = tf.signal.irfft(tf.math.conj(B) * C, [2 * taps])[:, :taps]
    k = _convolve(k, K[:, : u.shape[-1]], w["shift_D"][None])
    A = tf.complex(-tf.exp(w["diagonal/log_A_real"]), w["diagonal/A_imag"])
    dt = _real(tf.exp(w["diagonal/log_dt"]))
    below = 1 - A * dt / 2
    C = _complex(w, "diagonal/C") * _complex(w, "diagonal/B") * dt / below
    K = 2 * tf.math.real(_vandermonde(C, tf.math.log((1 + A * dt / 2) / below), u.shape[-1]))
    return _projected(w, "output_dense", q * _convolve(k * v, K, w["diagonal/D"]))


def hyena(w, u):
    """Hyena: a network that makes the kernel, and a Fourier transform between two gates."""
    H, L = u.shape[-2:]
    x = _projected(w, "in_proj", u)
    kernel, x = w["conv_kernel"], tf.pad(x, [(0, 0), (0, 0), (2, 0)])
    x = sum(x[..., k : k + L] * kernel[k][:, None] for k in range(3)) + w["conv_bias"][:, None]
    first, second, v = tf.split(x, 3, axis=1)
    h = w["positions"]
    for i in range(3):
        h = tf.sin(w["frequency"] * (h @ w[f"filter_kernel_{i}"] + w[f"filter_bias_{i}"]))
    t = tf.linspace(0.0, 1.0, h.shape[0])
    decay = tf.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, H)
    h = (h @ w["filter_output"]) * tf.exp(-t[:, None] * tf.abs(decay))
    v = _convolve(v * second, tf.transpose(h[:L]), w["D"])
    return _projected(w, "out_proj", v * first)


def _projected(w, name, u):
    return tf.einsum("hd,bhl->bdl", w[f"{name}/kernel"], u) + w[f"{name}/bias"][:, None]


def gss(w, u):
    """The block of gated state spaces: a DSS of few features, before which others become a gate."""
    gelu, short = tf.nn.gelu, _normed(w, "norm", u)
    x = _normed(w, "inner_norm", gelu(short @ w["bottleneck_dense/kernel"]))
    A = tf.complex(-tf.exp(w["dss/log_A_real"]), tf.exp(w["dss/log_A_imag"]))
    C = _complex(w, "dss/C") * (tf.exp(A) - 1) / A
    powers = tf.exp(A[:, None] * tf.cast(tf.range(u.shape[1]), A.dtype))
    K = tf.math.real(tf.einsum("hn,nl->hl", C[0], powers))
    y = tf.transpose(_convolve(tf.transpose(x, (0, 2, 1)), K, w["dss/D"]), (0, 2, 1))
    gate = gelu(short @ w["gate_dense/kernel"])
    y = (y @ w["wide_dense/kernel"] * gate) @ w["output_dense/kernel"]
    return u + y + w["output_dense/bias"]


def _normed(w, name, x):
    x = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    x = x * tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-5)
    return x * w[f"{name}/gamma"] + w[f"{name}/beta"]


def s4nd(w, u):
    """S4ND: the outer product of two kernels that read both ways, and a transform of both axes."""
    sides = u.shape[-2:]
    first, last = (_both_ways(w, f"axis_{i}", n) for i, n in enumerate(sides))
    K = tf.signal.fft(_real(first))[..., :, None] * tf.signal.rfft(last)[..., None, :]
    size = [2 * n for n in sides]
    y = tf.signal.irfft2d(tf.signal.rfft2d(u, size) * K, size)
    return y[..., : sides[0], : sides[1]] + u * w["D"][0][:, None, None]


def _both_ways(w, axis, length):
    w = {name.removeprefix(f"{axis}/"): value for name, value in w.items()}
    dt = _real(tf.exp(w["log_dt"]))
    z = tf.complex(-tf.exp(w["log_A_real"]), w["A_imag"]) * dt
    C = _complex(w, "C") * _complex(w, "B") * (tf.exp(z) - 1) * dt / z
    powers = tf.exp(z[..., None] * _real(tf.range(length, dtype=tf.float32)))
    K = 2 * tf.math.real(tf.einsum("chn,hnl->chl", C, powers))
    past, later = (tf.pad(k, [(0, 0), (0, length)]) for k in (K[0], K[1]))
    return past + later[:, ::-1]


def _scanned(u, dA, dB, C):
    driven = tf.einsum("blh,ph->blp", _real(u), dB)
    gains = tf.broadcast_to(dA, tf.shape(driven))
    _, x = associative_scan(gains, driven, _concatenate, _interleave)
    return tf.math.real(tf.einsum("blp,hp->blh", x, C))


def _concatenate(parts):
    return tf.concat(parts, axis=1)


def _interleave(even, odd):
    n, m = even.shape[1], odd.shape[1]
    pairs = tf.stack([even[:, :m], odd], axis=2)
    joined = tf.reshape(pairs, (tf.shape(even)[0], 2 * m, even.shape[2]))
    return joined if n == m else tf.concat([joined, even[:, m:]], axis=1)


def _real(x):
    return tf.complex(x, tf.zeros_like(x))


def _complex(w, key):
    return tf.complex(w[f"{key}_real"], w[f"{key}_imag"])


def _vandermonde(C, z, length):
    powers = tf.exp(z[..., None] * _real(tf.range(length, dtype=tf.float32)))
    return tf.einsum("chn,hnl->chl", C, powers)[0]


def _convolve(u, K, D):
    L = u.shape[-1]
    spectrum = tf.signal.rfft(u, [2 * L]) * tf.signal.rfft(K, [2 * L])
    return tf.signal.irfft(spectrum, [2 * L])[..., :L] + u * D[0][:, None]
