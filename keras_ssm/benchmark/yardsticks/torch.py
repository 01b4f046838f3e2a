"""The published formulations on PyTorch."""

import math

import torch

from keras_ssm.benchmark.yardsticks.scan import associative_scan


def s4d(w, u):
    """S4D: K[l] = 2 Re sum C B (e^(dt A) - 1) / A e^(dt A l), and a Fourier transform."""
    dt = torch.exp(w["log_dt"])
    A = torch.complex(-torch.exp(w["log_A_real"]), w["A_imag"])
    z = A * dt
    C = _complex(w, "C") * _complex(w, "B") * (torch.exp(z) - 1) / A
    return _convolve(u, 2 * _vandermonde(C, z, u.shape[-1]).real, w["D"])


def dss(w, u):
    """DSS with the exp kernel: N complex modes, none of them a conjugate of another."""
    dt = torch.exp(w["log_dt"])
    A = torch.complex(-torch.exp(w["log_A_real"]), w["A_imag"])
    z = torch.complex(A.real * dt[:, :1], A.imag * dt[:, -1:])
    C = _complex(w, "C") * (torch.exp(z) - 1) / A
    return _convolve(u, _vandermonde(C, z, u.shape[-1]).real, w["D"])


def s4(w, u):
    """S4: the generating function of a diagonal plus low rank system at the roots of unity."""
    L = u.shape[-1]
    dt = torch.exp(w["log_dt"])
    A = torch.complex(-torch.exp(w["log_A_real"]), w["A_imag"]) * dt
    P, B, C = (_complex(w, key) for key in ("P", "B", "C"))
    # Nodes a little inside -1, at which the bilinear transform has its pole.
    omega = torch.exp(-2j * math.pi * torch.arange(L // 2 + 1, device=A.device) / L).to(A.dtype)
    omega = torch.where((omega + 1).abs() < 1e-6, omega + 1e-6, omega)
    z = 2 * (1 - omega) / (1 + omega)
    left = torch.cat([C, P.conj()])  # (1 + rank, features, modes)
    right = torch.cat([B[None], P])
    v = left[:, None] * right[None] * dt
    cauchy = v[..., None] / (z - A[..., None])
    mirrored = v.conj()[..., None] / (z - A.conj()[..., None])
    k = (cauchy + mirrored).sum(dim=-2)
    K = k[0, 0] - k[0, 1] * k[1, 0] / (1 + k[1, 1])
    return _convolve(u, torch.fft.irfft(K * 2 / (1 + omega), n=L), w["D"])


def s5(w, u):
    """S5: a complex associative scan over the samples."""
    dt = torch.exp(w["log_dt"])
    Lambda = torch.complex(w["Lambda_real"], w["Lambda_imag"])
    dA = torch.exp(Lambda * dt)
    dB = ((dA - 1) / Lambda)[:, None] * _complex(w, "B")
    return 2 * _scanned(u, dA, dB, _complex(w, "C")[0]) + u * w["D"]


def lru(w, u):
    """LRU: the same scan, of eigenvalues inside the unit circle and normalised inputs."""
    dA = torch.exp(torch.complex(-torch.exp(w["nu_log"]), torch.exp(w["theta_log"])))
    dB = torch.exp(w["gamma_log"])[:, None] * _complex(w, "B")
    return _scanned(u, dA, dB, _complex(w, "C")) + u * w["D"]


def spacetime(w, u):
    """SpaceTime: the powers of a companion matrix by doubling, and a Fourier transform."""
    a, L = w["a"], u.shape[-1]
    a = a / a.abs().sum(dim=-1, keepdim=True)
    states = a.shape[-1]
    A = torch.diag(torch.ones(states - 1, device=a.device), -1).expand(len(a), -1, -1)
    A = A + torch.nn.functional.pad(a[..., None], (states - 1, 0))
    x = w["B"][..., None]  # the columns A^l B
    while x.shape[-1] < L:
        x = torch.cat([x, A @ x[..., : L - x.shape[-1]]], dim=-1)
        A = A @ A if x.shape[-1] < L else A
    return _convolve(u, torch.einsum("hnl,hn->hl", x, w["C"][0]), w["D"])


def sgconv(w, u):
    """SGConv: pieces stretched one after the other, and a Fourier transform."""
    parts = [
        torch.nn.functional.interpolate(
            piece * 2.0 ** (len(w["kernel"]) - 1 - i),
            scale_factor=2 ** max(0, i - 1),
            mode="linear",
        )
        for i, piece in enumerate(w["kernel"])
    ]
    K = torch.cat(parts, dim=-1)
    K = K / K.norm(dim=-1, keepdim=True).detach()  # fixed, as at the first step of training
    return _convolve(u, K[0, :, : u.shape[-1]], w["D"])


def longconv(w, u):
    """A long convolution: free entries, squashed, and a Fourier transform."""
    K = torch.relu(w["kernel"].abs() - 0.003) * w["kernel"].sign()
    return _convolve(u, K[0, :, : u.shape[-1]], w["D"])


def h3(w, u):
    """H3: two convolutions by Fourier transforms, between projections that multiply."""
    q, k, v = (_projected(w, name, u) for name in ("q_dense", "k_dense", "v_dense"))
    taps = w["shift_B"].shape[1]
    B, C = (torch.fft.rfft(w[key], n=2 * taps) for key in ("shift_B", "shift_C"))
    K = torch.fft.irfft(B.conj() * C, n=2 * taps)[:, :taps]
    k = _convolve(k, K[:, : u.shape[-1]], w["shift_D"][None])
    A = torch.complex(-torch.exp(w["diagonal/log_A_real"]), w["diagonal/A_imag"])
    dt = torch.exp(w["diagonal/log_dt"])
    below = 1 - A * dt / 2
    C = _complex(w, "diagonal/C") * _complex(w, "diagonal/B") * dt / below
    K = 2 * _vandermonde(C, torch.log((1 + A * dt / 2) / below), u.shape[-1]).real
    return _projected(w, "output_dense", q * _convolve(k * v, K, w["diagonal/D"]))


def hyena(w, u):
    """Hyena: a network that makes the kernel, and a Fourier transform between two gates."""
    H, L = u.shape[-2:]
    x = _projected(w, "in_proj", u)
    kernel = w["conv_kernel"].T[:, None]
    x = torch.nn.functional.conv1d(x, kernel, w["conv_bias"], padding=2, groups=3 * H)[..., :L]
    first, second, v = x.split(H, dim=1)
    h = w["positions"]
    for i in range(3):
        h = torch.sin(w["frequency"] * (h @ w[f"filter_kernel_{i}"] + w[f"filter_bias_{i}"]))
    t = torch.linspace(0.0, 1.0, len(h), device=h.device)
    decay = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, H, device=h.device)
    h = (h @ w["filter_output"]) * torch.exp(-t[:, None] * torch.abs(decay))
    v = _convolve(v * second, h[:L].T, w["D"])
    return _projected(w, "out_proj", v * first)


def _projected(w, name, u):
    return w[f"{name}/kernel"].T @ u + w[f"{name}/bias"][:, None]


def gss(w, u):
    """The block of gated state spaces: a DSS of few features, before which others become a gate."""
    gelu, short = torch.nn.functional.gelu, _normed(w, "norm", u)
    x = _normed(w, "inner_norm", gelu(short @ w["bottleneck_dense/kernel"])).transpose(1, 2)
    A = torch.complex(-torch.exp(w["dss/log_A_real"]), torch.exp(w["dss/log_A_imag"]))
    C = _complex(w, "dss/C") * (torch.exp(A) - 1) / A
    powers = torch.exp(A[:, None] * torch.arange(u.shape[1], device=A.device))
    y = _convolve(x, torch.einsum("hn,nl->hl", C[0], powers).real, w["dss/D"]).transpose(1, 2)
    gate = gelu(short @ w["gate_dense/kernel"])
    y = (y @ w["wide_dense/kernel"] * gate) @ w["output_dense/kernel"]
    return u + y + w["output_dense/bias"]


def _normed(w, name, x):
    gamma, beta = w[f"{name}/gamma"], w[f"{name}/beta"]
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta, 1e-5)


def s4nd(w, u):
    """S4ND: the outer product of two kernels that read both ways, and a transform of both axes."""
    sides = u.shape[-2:]
    first, last = (_both_ways(w, f"axis_{i}", n) for i, n in enumerate(sides))
    K = torch.fft.fft(first)[..., :, None] * torch.fft.rfft(last)[..., None, :]
    size = [2 * n for n in sides]
    y = torch.fft.irfftn(torch.fft.rfftn(u, s=size) * K, s=size)
    return y[..., : sides[0], : sides[1]] + u * w["D"][0][:, None, None]


def _both_ways(w, axis, length):
    w = {name.removeprefix(f"{axis}/"): value for name, value in w.items()}
    z = torch.complex(-torch.exp(w["log_A_real"]), w["A_imag"]) * torch.exp(w["log_dt"])
    C = _complex(w, "C") * _complex(w, "B") * (torch.exp(z) - 1) * torch.exp(w["log_dt"]) / z
    powers = torch.exp(z[..., None] * torch.arange(length, device=z.device))
    past, later = 2 * torch.einsum("chn,hnl->chl", C, powers).real
    pad = torch.nn.functional.pad
    return pad(past, (0, length)) + pad(later.flip(-1), (length, 0))


def _scanned(u, dA, dB, C):
    driven = u.to(dB.dtype) @ dB.T
    _, x = associative_scan(dA.expand_as(driven), driven, _concatenate, _interleave)
    return (x @ C.T).real


def _concatenate(parts):
    return torch.cat(parts, dim=1)


def _interleave(even, odd):
    out = even.new_empty((even.shape[0], even.shape[1] + odd.shape[1], *even.shape[2:]))
    out[:, ::2], out[:, 1::2] = even, odd
    return out


def _complex(w, key):
    return torch.complex(w[f"{key}_real"], w[f"{key}_imag"])


def _vandermonde(C, z, length):
    powers = torch.exp(z[..., None] * torch.arange(length, device=z.device))
    return torch.einsum("chn,hnl->chl", C, powers)[0]


def _convolve(u, K, D):
    L = u.shape[-1]
    spectrum = torch.fft.rfft(u, n=2 * L) * torch.fft.rfft(K, n=2 * L)
    return torch.fft.irfft(spectrum, n=2 * L)[..., :L] + u * D[0][:, None]


def parallel_scan(gains, driven):
    """The states h_t = gains_t h_(t-1) + driven_t by Blelloch's sweeps, over all steps at once.

    The gradient scans the other way. Gains and states of all steps are kept for it.
    """
    return _ParallelScan.apply(gains, driven)


class _ParallelScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gains, driven):
        states = _swept(gains, driven)
        ctx.save_for_backward(gains, states)
        return states

    @staticmethod
    def backward(ctx, upstream):
        gains, states = ctx.saved_tensors
        later = torch.cat([gains[:, 1:], torch.ones_like(gains[:, :1])], dim=1)
        adjoint = _swept(later.flip(1), upstream.flip(1)).flip(1)
        d_gains = torch.zeros_like(gains)
        d_gains[:, 1:] = adjoint[:, 1:] * states[:, :-1]
        return d_gains, adjoint


def _swept(gains, driven):
    """Two sweeps over a copy that is filled up to a power of two."""
    length = driven.shape[1]
    rest = (1 << (length - 1).bit_length()) - length
    a, x = (torch.nn.functional.pad(z, (0, 0, 0, 0, 0, rest)).clone() for z in (gains, driven))
    distances = [1 << k for k in range((length + rest).bit_length() - 1)]
    for d in distances:
        _combine(a, x, slice(2 * d - 1, None, 2 * d), slice(d - 1, None, 2 * d))
    for d in reversed(distances[:-1]):
        _combine(a, x, slice(3 * d - 1, None, 2 * d), slice(2 * d - 1, -d, 2 * d))
    return x[:, :length]


def _combine(a, x, later, earlier):
    x[:, later].addcmul_(a[:, later], x[:, earlier])
    a[:, later].mul_(a[:, earlier])
