"""Convolutions through the Fourier transform on PyTorch, with a gradient of real transforms."""

import torch
from torch.fft import irfft, rfft

from keras_ssm.ops.backend.torch.tensors import by_autograd, must_be_plain, needs_autograd
from keras_ssm.ops.exporting import is_exporting


def circular(u, kernel, size):
    """Convolves on a circle, in complex numbers: four products less than in real ones.

    PyTorch's own gradient of a real transform is a complex one, of twice the work.
    """
    if must_be_plain() or torch.jit.is_tracing() or is_exporting():
        return plain(u, kernel, size)
    return _Circular.apply(u, kernel, size)


def plain(u, kernel, size):
    """The same with the gradient of PyTorch."""
    return irfft(rfft(u, n=size)[:, None] * rfft(kernel, n=size), n=size)[..., : u.shape[-1]]


class _Circular(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, kernel, size):
        spectra = rfft(u, n=size)[:, None], rfft(kernel, n=size)
        ctx.size = size
        ctx.save_for_backward(u, kernel, *spectra)
        return irfft(spectra[0] * spectra[1], n=size)[..., : u.shape[-1]]

    @staticmethod
    def backward(ctx, slope):
        u, kernel, u_spectrum, spectrum = ctx.saved_tensors
        size = ctx.size
        if needs_autograd(slope):
            of_size = lambda u, kernel: plain(u, kernel, size)
            return *by_autograd(of_size, (u, kernel), slope), None
        d_u = d_kernel = None
        slope = rfft(slope, n=size)
        if ctx.needs_input_grad[0]:
            through = (slope * spectrum.conj()).sum(1)
            d_u = irfft(through, n=size)[..., : u.shape[-1]]
        if ctx.needs_input_grad[1]:
            through = (slope * u_spectrum.conj()).sum(0)
            d_kernel = irfft(through, n=size)[..., : kernel.shape[-1]]
        return d_u, d_kernel, None
