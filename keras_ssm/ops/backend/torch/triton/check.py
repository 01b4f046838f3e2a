"""Comparisons of the kernels with float64, small enough for a first call."""

import torch

from keras_ssm.ops.backend.torch.triton.discretize import Hold
from keras_ssm.ops.backend.torch.triton.functions import Outputs
from keras_ssm.ops.backend.torch.triton.scan import DiagonalScan

BATCH, LENGTH, FEATURES, MODES = 2, 150, 3, 5


def error_of_bank(device, dtype, modes):
    """The largest error of outputs and gradients of a bank, relative to the largest entry.

    Args:
        device: torch device.
        dtype: data type of the sequences.
        modes: int. A power of two; the bank has a few less.

    Returns:
        float, infinite if there is something that is no number.
    """
    draw, modes = _random(device), modes - 3
    pace = torch.tensor([[0.3], [0.03], [0.005]], device=device)
    im = 3.0 * pace * torch.arange(modes, device=device)
    C, dB = (draw(1, FEATURES, modes) for _ in "12"), (draw(FEATURES, modes) for _ in "12")
    tensors = [-0.5 * pace.expand(FEATURES, modes).contiguous(), im, *C, *dB, draw(1, FEATURES)]
    u = draw(BATCH, LENGTH, FEATURES).to(dtype)

    def kernels(*tensors):
        return Outputs.apply((False, None), *tensors, None)

    return _largest_error(kernels, _by_matrices, [u, *tensors])


def error_of_scan(device):
    """The same of a scan with a transition that is the same in every step."""
    draw = _random(device)
    size = torch.exp(-torch.rand(2 * MODES, device=device))[None, None]
    tensors = [0.7 * size, draw(BATCH, LENGTH, 2 * MODES), draw(BATCH, 2 * MODES)]

    def kernels(*tensors):
        return DiagonalScan.apply(*tensors, False)

    return _largest_error(kernels, _step_by_step, tensors)


def error_of_zoh(device):
    """The same of the zero-order hold."""
    draw = _random(device)
    A = -torch.exp(draw(FEATURES, MODES)), 3.0 * draw(FEATURES, MODES)
    tensors = [*A, draw(FEATURES, MODES), draw(FEATURES, MODES), torch.exp(draw(FEATURES, 1) - 3)]

    def kernels(*tensors):
        return torch.cat(Hold.apply(None, *tensors))

    return _largest_error(kernels, _zoh, tensors)


def _zoh(A_re, A_im, B_re, B_im, dt):
    A = torch.complex(A_re, A_im)
    dB = torch.complex(B_re, B_im) * (torch.exp(dt * A) - 1.0) / A
    return torch.cat([(dt * A).real, (dt * A).imag, dB.real, dB.imag])


def _largest_error(kernels, exact, tensors):
    tensors = [t.requires_grad_() for t in tensors]
    outputs, exact_outputs = kernels(*tensors), exact(*(t.double() for t in tensors))
    upstream = torch.cos(torch.arange(outputs.numel(), device=outputs.device)).view_as(outputs)
    upstream = upstream.to(outputs.dtype)
    results = [outputs, *torch.autograd.grad(outputs, tensors, upstream)]
    expected = [exact_outputs, *torch.autograd.grad(exact_outputs, tensors, upstream.double())]
    pairs = zip(results, expected, strict=True)
    errors = [(a.double() - b.double()).abs().max() / b.double().abs().max() for a, b in pairs]
    worst = torch.stack(errors).max().item()
    return worst if worst == worst else float("inf")


def _random(device):
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(device)


def _by_matrices(u, re, im, C_re, C_im, dB_re, dB_im, D):
    """By the kernel of each feature, as a matrix."""
    t = torch.arange(LENGTH, device=u.device)
    powers = torch.exp(torch.complex(re, im)[..., None] * t)
    weights = torch.complex(C_re, C_im)[0] * torch.complex(dB_re, dB_im)
    K = 2.0 * torch.einsum("hn,hnl->hl", weights, powers).real
    lag = t[:, None] - t[None]
    matrices = torch.where(lag >= 0, K[:, lag.clamp(min=0)], 0.0)
    return torch.einsum("hts,bsh->bth", matrices, u) + u * D[0]


def _step_by_step(dA, inputs, initial):
    a, x = (torch.complex(*t.chunk(2, dim=-1)) for t in (dA[0], initial))
    states = []
    for sample in torch.complex(*inputs.chunk(2, dim=-1)).unbind(1):
        x = a * x + sample
        states.append(x)
    states = torch.stack(states, 1)
    return torch.cat([states.real, states.imag], -1)
