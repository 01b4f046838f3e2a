"""Comparisons of the kernels with float64, small enough for a first call."""

import functools

import torch

from keras_ssm.ops.backend.torch.triton.conv import ConvSilu
from keras_ssm.ops.backend.torch.triton.dense import dense_states
from keras_ssm.ops.backend.torch.triton.discretize import Hold
from keras_ssm.ops.backend.torch.triton.dplr import Bilinear
from keras_ssm.ops.backend.torch.triton.functions import Outputs
from keras_ssm.ops.backend.torch.triton.gates import Gated, Glu
from keras_ssm.ops.backend.torch.triton.mamba import SelectiveScan
from keras_ssm.ops.backend.torch.triton.norms import Norm
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


def error_of_dense_scan(device):
    """The same of a scan with a dense transition, which has no gradients of its own."""
    draw, size = _random(device), 2 * MODES
    E, inputs = 0.1 * draw(FEATURES, size, size), draw(FEATURES, BATCH, 75, size)
    initial, worst = draw(FEATURES, BATCH, size), 0.0
    for reverse in (False, True):
        states = torch.empty_like(inputs)
        last = dense_states(E, inputs, states, initial, reverse)
        found = torch.cat([states, last[:, :, None]], 2).double()
        exact = _by_products(E.double(), inputs.double(), initial.double(), reverse)
        worst = max(worst, ((found - exact).abs().max() / exact.abs().max()).item())
    return worst if worst == worst else float("inf")


def error_of_selective_scan(device):
    """The largest error of outputs, last state and gradients of a selective scan."""
    draw = _random(device)
    sequence, weights = (BATCH, LENGTH, FEATURES), (BATCH, LENGTH, MODES)
    tensors = [draw(*sequence), draw(*sequence) - 1.0, draw(FEATURES)]
    tensors += [-torch.exp(draw(FEATURES, MODES)), draw(*weights), draw(*weights)]
    tensors += [draw(FEATURES), draw(BATCH, FEATURES, MODES)]
    mask = torch.arange(LENGTH, device=device)[None] != torch.tensor([[2], [3]], device=device)

    def kernels(x, raw, bias, *system):
        return _joined(*SelectiveScan.apply(None, x, raw, None, bias, mask, *system))

    def exact(x, raw, bias, *system):
        dt = mask[..., None] * torch.nn.functional.softplus(raw + bias)
        return _joined(*_sample_by_sample(x, dt, *system))

    return _largest_error(kernels, exact, tensors)


def error_of_conv(device):
    """The same of a short convolution with its SiLU, which reads half of a wider tensor."""
    draw, taps = _random(device), 4
    weights = draw(taps, FEATURES), draw(FEATURES), draw(BATCH, taps - 1, FEATURES)
    tensors = [draw(BATCH, LENGTH, 2 * FEATURES), *weights]

    def kernels(x, *weights):
        return ConvSilu.apply(None, x[..., FEATURES:], *weights)

    def exact(x, kernel, bias, before):
        x = torch.cat([before, x[..., FEATURES:]], 1)
        c = bias + sum(x[:, k : k + LENGTH] * kernel[k] for k in range(taps))
        return torch.nn.functional.silu(c)

    return _largest_error(kernels, exact, tensors)


def error_of_gates(device):
    """The same of each gate, of a tensor that lies in another one."""
    draw, worst = _random(device), []
    for kind, function in (("silu", torch.nn.functional.silu), ("sigmoid", torch.sigmoid)):
        tensors = [draw(BATCH, LENGTH, FEATURES), draw(BATCH, LENGTH, 2 * FEATURES)]

        def kernels(y, z, kind=kind):
            return Gated.apply(None, kind, y, z[..., FEATURES:])

        def exact(y, z, function=function):
            return y * function(z[..., FEATURES:])

        worst.append(_largest_error(kernels, exact, tensors))
    kernels, exact = functools.partial(Glu.apply, None), torch.nn.functional.glu
    return max(*worst, _largest_error(kernels, exact, [draw(BATCH, LENGTH, 2 * FEATURES)]))


def error_of_norms(device):
    """The same of layer and RMS norms of a sum, together with the sum."""
    draw, worst, shape = _random(device), [], (BATCH, LENGTH, 4 * FEATURES)
    for centred in (True, False):
        weights = [draw(shape[-1]) for _ in range(2 if centred else 1)]

        def kernels(x, y, gamma, beta=None):
            return torch.cat(Norm.apply(None, 1e-5, x.dtype, x, y, gamma, beta))

        def exact(x, y, gamma, beta=0.0):
            total = x + y
            s = total - total.mean(-1, keepdim=True) if torch.is_tensor(beta) else total
            norm = s * torch.rsqrt((s * s).mean(-1, keepdim=True) + 1e-5)
            return torch.cat([total, norm * gamma + beta])

        worst.append(_largest_error(kernels, exact, [draw(*shape), draw(*shape), *weights]))
    return max(worst)


def _joined(y, state):
    return torch.cat([y.flatten(), state.flatten()])


def _sample_by_sample(x, dt, A, B, C, D, state):
    outputs = []
    for sample, size, b, c in zip(*(t.unbind(1) for t in (x, dt, B, C)), strict=True):
        state = torch.exp(size[..., None] * A) * state + (size * sample)[..., None] * b[:, None]
        outputs.append((state * c[:, None]).sum(-1) + D * sample)
    return torch.stack(outputs, 1), state


def _by_products(E, inputs, x, reverse):
    states = []
    for sample in inputs.unbind(2)[:: -1 if reverse else 1]:
        states.append(x)
        x = x + x @ E + sample
    return torch.stack([*(states[::-1] if reverse else states), x], 2)


def error_of_bilinear(device):
    """The same of the bilinear rule of systems of rank one."""
    draw, shape = _random(device), (FEATURES, MODES)
    tensors = [-torch.exp(draw(*shape)), 3.0 * draw(*shape), *(draw(*shape) for _ in "1234")]
    tensors.append(torch.exp(draw(FEATURES, 1) - 3.0))

    def kernels(*tensors):
        return _joined(*Bilinear.apply(None, *tensors))

    return _largest_error(kernels, _by_solving, tensors)


def _by_solving(A_re, A_im, P_re, P_im, B_re, B_im, dt):
    """With the dense matrix M: (1 - dt M / 2)^-1 dt M, and the same of the inputs."""
    P = torch.cat([P_re, P_im], -1)
    turn = [torch.diag_embed(part) for part in (A_re, A_im)]
    M = torch.cat([torch.cat([turn[0], -turn[1]], -1), torch.cat([turn[1], turn[0]], -1)], -2)
    M = dt[..., None] * (M - 2.0 * P[..., None] * P[:, None])
    right = torch.cat([M, (dt * torch.cat([B_re, B_im], -1))[..., None]], -1)
    solved = torch.linalg.solve(
        torch.eye(M.shape[-1], device=M.device, dtype=M.dtype) - M / 2, right
    )
    return _joined(solved[..., :-1], solved[..., -1])


def _zoh(A_re, A_im, B_re, B_im, dt):
    A = torch.complex(A_re, A_im)
    dB = torch.complex(B_re, B_im) * (torch.exp(dt * A) - 1.0) / A
    return torch.cat([(dt * A).real, (dt * A).imag, dB.real, dB.imag])


def _largest_error(kernels, exact, tensors):
    tensors = [t.requires_grad_() for t in tensors]
    outputs, exact_outputs = kernels(*tensors), exact(*(t.double() for t in tensors))
    # Numbers without a pattern: of smooth ones the sums over time would cancel.
    upstream = _random(outputs.device, seed=1)(*outputs.shape).to(outputs.dtype)
    results = [outputs, *torch.autograd.grad(outputs, tensors, upstream)]
    expected = [exact_outputs, *torch.autograd.grad(exact_outputs, tensors, upstream.double())]
    pairs = zip(results, expected, strict=True)
    errors = [(a.double() - b.double()).abs().max() / b.double().abs().max() for a, b in pairs]
    worst = torch.stack(errors).max().item()
    return worst if worst == worst else float("inf")


def _random(device, seed=0):
    generator = torch.Generator().manual_seed(seed)
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


ERRORS = {
    "scan": error_of_scan,
    "dense": error_of_dense_scan,
    "dplr": error_of_bilinear,
    "zoh": error_of_zoh,
    "selective": error_of_selective_scan,
    "conv": error_of_conv,
    "gate": error_of_gates,
    "norm": error_of_norms,
}
