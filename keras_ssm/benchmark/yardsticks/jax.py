"""The published formulations on JAX."""

import functools
import math

import jax
import jax.numpy as jnp


def s4d(w, u):
    """S4D: K[l] = 2 Re sum C B (e^(dt A) - 1) / A e^(dt A l), and a Fourier transform."""
    A = -jnp.exp(w["log_A_real"]) + 1j * w["A_imag"]
    z = A * jnp.exp(w["log_dt"])
    C = _complex(w, "C") * _complex(w, "B") * (jnp.exp(z) - 1) / A
    return _convolve(u, 2 * _vandermonde(C, z, u.shape[-1]).real, w["D"])


def dss(w, u):
    """DSS with the exp kernel: N complex modes, none of them a conjugate of another."""
    dt = jnp.exp(w["log_dt"])
    A = -jnp.exp(w["log_A_real"]) + 1j * w["A_imag"]
    z = A.real * dt[:, :1] + 1j * A.imag * dt[:, -1:]
    C = _complex(w, "C") * (jnp.exp(z) - 1) / A
    return _convolve(u, _vandermonde(C, z, u.shape[-1]).real, w["D"])


def s4(w, u):
    """S4: the generating function of a diagonal plus low rank system at the roots of unity."""
    L = u.shape[-1]
    dt = jnp.exp(w["log_dt"])
    A = (-jnp.exp(w["log_A_real"]) + 1j * w["A_imag"]) * dt
    P, B, C = (_complex(w, key) for key in ("P", "B", "C"))
    # Nodes a little inside -1, at which the bilinear transform has its pole.
    omega = jnp.exp(-2j * jnp.pi * jnp.arange(L // 2 + 1) / L)
    omega = jnp.where(jnp.abs(omega + 1) < 1e-6, omega + 1e-6, omega)
    z = 2 * (1 - omega) / (1 + omega)
    left = jnp.concatenate([C, P.conj()])  # (1 + rank, features, modes)
    right = jnp.concatenate([B[None], P])
    v = left[:, None] * right[None] * dt
    cauchy = v[..., None] / (z - A[..., None])
    mirrored = v.conj()[..., None] / (z - A.conj()[..., None])
    k = (cauchy + mirrored).sum(axis=-2)
    K = k[0, 0] - k[0, 1] * k[1, 0] / (1 + k[1, 1])
    return _convolve(u, jnp.fft.irfft(K * 2 / (1 + omega), n=L), w["D"])


def s5(w, u):
    """S5: a complex associative scan over the samples, mapped over the batch."""
    Lambda = w["Lambda_real"] + 1j * w["Lambda_imag"]
    dA = jnp.exp(Lambda * jnp.exp(w["log_dt"]))
    dB = ((dA - 1) / Lambda)[:, None] * _complex(w, "B")
    return 2 * _scanned(u, dA, dB, _complex(w, "C")[0]) + u * w["D"]


def lru(w, u):
    """LRU: the same scan, of eigenvalues inside the unit circle and normalised inputs."""
    dA = jnp.exp(-jnp.exp(w["nu_log"]) + 1j * jnp.exp(w["theta_log"]))
    dB = jnp.exp(w["gamma_log"])[:, None] * _complex(w, "B")
    return _scanned(u, dA, dB, _complex(w, "C")) + u * w["D"]


def spacetime(w, u):
    """SpaceTime: the powers of a companion matrix by doubling, and a Fourier transform."""
    a, L = w["a"], u.shape[-1]
    a = a / jnp.abs(a).sum(axis=-1, keepdims=True)
    states = a.shape[-1]
    A = jnp.eye(states, k=-1) + jnp.pad(a[..., None], [(0, 0), (0, 0), (states - 1, 0)])
    x = w["B"][..., None]  # the columns A^l B
    while x.shape[-1] < L:
        x = jnp.concatenate([x, A @ x[..., : L - x.shape[-1]]], axis=-1)
        A = A @ A if x.shape[-1] < L else A
    return _convolve(u, jnp.einsum("hnl,hn->hl", x, w["C"][0]), w["D"])


def sgconv(w, u):
    """SGConv: pieces stretched one after the other, and a Fourier transform."""
    parts = []
    for i, piece in enumerate(w["kernel"]):
        shape = (*piece.shape[:-1], piece.shape[-1] * 2 ** max(0, i - 1))
        piece = piece * 2.0 ** (len(w["kernel"]) - 1 - i)
        parts.append(jax.image.resize(piece, shape, "linear"))
    K = jnp.concatenate(parts, axis=-1)
    # Fixed, as at the first step of training.
    K = K / jax.lax.stop_gradient(jnp.linalg.norm(K, axis=-1, keepdims=True))
    return _convolve(u, K[0, :, : u.shape[-1]], w["D"])


def longconv(w, u):
    """A long convolution: free entries, squashed, and a Fourier transform."""
    K = jax.nn.relu(jnp.abs(w["kernel"]) - 0.003) * jnp.sign(w["kernel"])
    return _convolve(u, K[0, :, : u.shape[-1]], w["D"])


def h3(w, u):
    """H3: two convolutions by Fourier transforms, between projections that multiply."""
    q, k, v = (_projected(w, name, u) for name in ("q_dense", "k_dense", "v_dense"))
    taps = w["shift_B"].shape[1]
    B, C = (jnp.fft.rfft(w[key], n=2 * taps) for key in ("shift_B", "shift_C"))
    K = jnp.fft.irfft(B.conj() * C, n=2 * taps)[:, :taps]
    k = _convolve(k, K[:, : u.shape[-1]], w["shift_D"][None])
    A = -jnp.exp(w["diagonal/log_A_real"]) + 1j * w["diagonal/A_imag"]
    dt = jnp.exp(w["diagonal/log_dt"])
    below = 1 - A * dt / 2
    C = _complex(w, "diagonal/C") * _complex(w, "diagonal/B") * dt / below
    K = 2 * _vandermonde(C, jnp.log((1 + A * dt / 2) / below), u.shape[-1]).real
    return _projected(w, "output_dense", q * _convolve(k * v, K, w["diagonal/D"]))


def hyena(w, u):
    """Hyena: a network that makes the kernel, and a Fourier transform between two gates."""
    H, L = u.shape[-2:]
    x = _projected(w, "in_proj", u)
    kernel, x = w["conv_kernel"], jnp.pad(x, [(0, 0), (0, 0), (2, 0)])
    x = sum(x[..., k : k + L] * kernel[k][:, None] for k in range(3)) + w["conv_bias"][:, None]
    first, second, v = jnp.split(x, 3, axis=1)
    h = w["positions"]
    for i in range(3):
        h = jnp.sin(w["frequency"] * (h @ w[f"filter_kernel_{i}"] + w[f"filter_bias_{i}"]))
    t = jnp.linspace(0.0, 1.0, len(h))
    decay = jnp.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, H)
    h = (h @ w["filter_output"]) * jnp.exp(-t[:, None] * jnp.abs(decay))
    v = _convolve(v * second, h[:L].T, w["D"])
    return _projected(w, "out_proj", v * first)


def _projected(w, name, u):
    return w[f"{name}/kernel"].T @ u + w[f"{name}/bias"][:, None]


def gss(w, u):
    """The block of gated state spaces: a DSS of few features, before which others become a gate."""
    gelu, short = functools.partial(jax.nn.gelu, approximate=False), _normed(w, "norm", u)
    x = _normed(w, "inner_norm", gelu(short @ w["bottleneck_dense/kernel"])).swapaxes(1, 2)
    A = jax.lax.complex(-jnp.exp(w["dss/log_A_real"]), jnp.exp(w["dss/log_A_imag"]))
    C = _complex(w, "dss/C") * (jnp.exp(A) - 1) / A
    powers = jnp.exp(A[:, None] * jnp.arange(u.shape[1]))
    y = _convolve(x, jnp.einsum("hn,nl->hl", C[0], powers).real, w["dss/D"]).swapaxes(1, 2)
    gate = gelu(short @ w["gate_dense/kernel"])
    y = (y @ w["wide_dense/kernel"] * gate) @ w["output_dense/kernel"]
    return u + y + w["output_dense/bias"]


def _normed(w, name, x):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
    return x * w[f"{name}/gamma"] + w[f"{name}/beta"]


def s4nd(w, u):
    """S4ND: the outer product of two kernels that read both ways, and a transform of both axes."""
    sides = u.shape[-2:]
    first, last = (_both_ways(w, f"axis_{i}", n) for i, n in enumerate(sides))
    K = jnp.fft.fft(first)[..., :, None] * jnp.fft.rfft(last)[..., None, :]
    size = [2 * n for n in sides]
    y = jnp.fft.irfftn(jnp.fft.rfftn(u, s=size, axes=(-2, -1)) * K, s=size, axes=(-2, -1))
    return y[..., : sides[0], : sides[1]] + u * w["D"][0][:, None, None]


def _both_ways(w, axis, length):
    w = {name.removeprefix(f"{axis}/"): value for name, value in w.items()}
    z = (-jnp.exp(w["log_A_real"]) + 1j * w["A_imag"]) * jnp.exp(w["log_dt"])
    C = _complex(w, "C") * _complex(w, "B") * (jnp.exp(z) - 1) * jnp.exp(w["log_dt"]) / z
    powers = jnp.exp(z[..., None] * jnp.arange(length))
    past, later = 2 * jnp.einsum("chn,hnl->chl", C, powers).real
    past, later = (jnp.pad(k, [(0, 0), (0, length)]) for k in (past, later))
    return past + later[:, ::-1]


def _scanned(u, dA, dB, C):
    def combine(before, after):
        return after[0] * before[0], after[0] * before[1] + after[1]

    def one_row(u):
        driven = jax.vmap(lambda sample: dB @ sample)(u)
        gains = jnp.broadcast_to(dA, driven.shape)
        _, x = jax.lax.associative_scan(combine, (gains, driven))
        return jax.vmap(lambda state: (C @ state).real)(x)

    return jax.vmap(one_row)(u)


def _complex(w, key):
    return w[f"{key}_real"] + 1j * w[f"{key}_imag"]


def _vandermonde(C, z, length):
    powers = jnp.exp(z[..., None] * jnp.arange(length))
    return jnp.einsum("chn,hnl->chl", C, powers)[0]


def _convolve(u, K, D):
    L = u.shape[-1]
    spectrum = jnp.fft.rfft(u, n=2 * L) * jnp.fft.rfft(K, n=2 * L)
    return jnp.fft.irfft(spectrum, n=2 * L)[..., :L] + u * D[0][:, None]
