"""Activations of the blocks, exact in every dtype and writable for other programs."""

import keras
import numpy as np
from keras import ops

from keras_ssm.ops import backend
from keras_ssm.ops.exporting import is_exporting


def get_activation(name):
    """Returns the activation of that name."""
    if name == "gelu":
        return _gelu
    if name == "gelu_tanh":
        return _gelu_tanh
    try:
        if name is not None and not isinstance(name, str):
            raise ValueError
        return keras.activations.get(name)
    except ValueError:
        raise ValueError(
            "`activation` must be 'gelu', 'gelu_tanh', None or a name of `keras.activations`. "
            f"Received: activation={name!r}"
        ) from None


# In float64 these stand in for TensorFlow's own, which round their constants to float32.


def _gelu(x):
    dtype = keras.backend.standardize_dtype(x.dtype)
    if is_exporting() and not backend.exports_erf():
        wide = ops.cast(x, "float64" if dtype == "float64" else "float32")
        return ops.cast(0.5 * wide * (1.0 + _plain_erf(wide * 0.5**0.5)), dtype)
    # Keras takes erfc: on JAX it needs more passes, and ONNX has no such operation for TensorFlow.
    # In half precision, 1 + erf would lose digits.
    if dtype == "float64" or (dtype == "float32" and backend.takes_erfc()):
        return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))
    return keras.activations.gelu(x, approximate=False)


def _plain_erf(x):
    """erf within 1.5e-7, in operations that older readers of JAX's programs know too.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    t = 1.0 / (1.0 + 0.3275911 * ops.abs(x))
    total = 0.0 * t
    for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        total = (total + a) * t
    return ops.sign(x) * (1.0 - total * ops.exp(-x * x))


def _gelu_tanh(x):
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        tanh = ops.tanh if isinstance(x, keras.KerasTensor) else backend.tanh
        return 0.5 * x * (1.0 + tanh((2.0 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return keras.activations.gelu(x, approximate=True)
