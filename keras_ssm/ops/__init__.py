"""Pure functions on tensors: no layers, no weights."""

from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.discretize import bilinear, zoh
from keras_ssm.ops.fft_conv import fft_conv
from keras_ssm.ops.naive import naive
from keras_ssm.ops.powers import kernel, powers
from keras_ssm.ops.recurrent import recurrent, step
from keras_ssm.ops.scan import boundary_states
from keras_ssm.ops.toeplitz import toeplitz

__all__ = [
    "bilinear",
    "boundary_states",
    "chunked",
    "fft_conv",
    "kernel",
    "naive",
    "powers",
    "recurrent",
    "step",
    "toeplitz",
    "zoh",
]
