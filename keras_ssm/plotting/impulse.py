"""Kernels and spectra of layers, in NumPy."""

import numpy as np
from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers import MIMOLayer

# Frequencies at a time: their matrices of all inputs and outputs fit in memory.
BLOCK = 256


def impulse_response(layer, length):
    """The response of each output to an impulse in each input, without the skip D.

    Args:
        layer: built layer of the family.
        length: int. Steps after the impulse and, of a bidirectional layer, before it.

    Returns:
        Tuple of the lags `(steps,)` and the responses `(outputs, inputs, steps)`; `inputs` is 1
        where a feature has a system of its own.

    Raises:
        ValueError: if the length is not a positive integer.
    """
    check_positive(length=length)
    if isinstance(layer, MIMOLayer):
        log_dA, dB, C = _matrices(layer)
        powers = np.exp(log_dA[:, None] * np.arange(length))
        kernels = np.real(np.einsum("dim,mj,ml->dijl", C, dB, powers, optimize=True))
    else:
        kernels = ops.convert_to_numpy(layer.kernel(length)).astype("float64")
        kernels = kernels.reshape(1 + layer.bidirectional, -1, 1, length)
    if not layer.bidirectional:
        return np.arange(length), kernels[0]
    past, future = kernels
    if isinstance(layer, MIMOLayer):  # both directions see the current sample
        past[..., 0] += future[..., 0]
        future = future[..., 1:]
    before = future.shape[-1]
    return np.arange(-before, length), np.concatenate([future[..., ::-1], past], axis=-1)


def gains(layer, length):
    """How strongly each output answers to each frequency, all inputs alike and independent.

    Args:
        layer: built layer of the family.
        length: int. Steps of the kernels.

    Returns:
        Array `(outputs, length // 2 + 1)`: the norm, over the inputs, of the kernels' spectrum.

    Raises:
        ValueError: if the length is not a positive integer.
    """
    check_positive(length=length)
    frequencies = np.fft.rfftfreq(length)
    if not isinstance(layer, MIMOLayer):
        lags, kernels = impulse_response(layer, length)
        spectrum = np.fft.rfft(kernels[:, 0, lags >= 0])
        if layer.bidirectional:
            future = np.fft.rfft(kernels[:, 0, lags < 0][:, ::-1])
            # Its first entry is the sample after the current one.
            spectrum = spectrum + np.exp(2j * np.pi * frequencies) * future.conj()
        return np.abs(spectrum)
    log_dA, dB, C = _matrices(layer)
    norms = []
    for start in range(0, len(frequencies), BLOCK):
        angles = 2 * np.pi * frequencies[start : start + BLOCK]
        spectrum = _spectrum(angles, length, log_dA, dB, C[0])
        if layer.bidirectional:
            spectrum = spectrum + _spectrum(angles, length, log_dA, dB, C[1]).conj()
        norms.append(np.linalg.norm(spectrum, axis=-1).T)
    return np.concatenate(norms, axis=-1)


def _spectrum(angles, length, log_dA, dB, C):
    """Spectrum of the real kernels Re(C dA^l dB), `(frequencies, outputs, inputs)`.

    A geometric series, at the frequencies of a Fourier transform of that length.
    """
    total = 0.0
    for conjugated in (np.asarray, np.conj):  # the two make the real part
        z = conjugated(log_dA)
        series = np.expm1(length * z) / np.expm1(z - 1j * angles[:, None])
        total = total + 0.5 * (series[:, None, :] * conjugated(C)) @ conjugated(dB)
    return total


def _matrices(layer):
    """Complex log dA `(modes,)`, dB `(modes, inputs)` and C `(directions, outputs, modes)`.

    The kernels are the real parts of C dA^l dB: C is doubled where conjugates are left out.
    """
    (real, imag), dB = layer.discrete_matrices()
    log_dA = _array(real) + 1j * _array(imag)
    C = (2.0 if layer.conj_sym else 1.0) * _complex(layer.output_matrices())
    return log_dA, _complex(dB).T, C


def _complex(tensor):
    real, imag = np.split(_array(tensor), 2, axis=-1)
    return real + 1j * imag


def _array(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")
