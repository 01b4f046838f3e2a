"""Pure functions on tensors: no layers, no weights."""

from keras_ssm.ops.causal_conv import causal_conv
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.chunks import toeplitz
from keras_ssm.ops.companion import CompanionBank, companion_matrix, companion_step
from keras_ssm.ops.delta import delta_rule
from keras_ssm.ops.dense_bank import DenseBank
from keras_ssm.ops.diagonal_bank import DiagonalBank
from keras_ssm.ops.discretize import bilinear, zoh
from keras_ssm.ops.dplr import dplr_bilinear, dplr_factors, dplr_kernel
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.growing_modes import growing_chunked
from keras_ssm.ops.mimo import mimo
from keras_ssm.ops.naive import (
    convolve,
    naive,
    naive_delta,
    naive_dense,
    naive_mimo,
    naive_selective,
)
from keras_ssm.ops.powers import kernel, powers
from keras_ssm.ops.recurrence import scan, state_passing
from keras_ssm.ops.recurrent import low_rank_step, recurrent, step
from keras_ssm.ops.selective_scan import selective_scan
from keras_ssm.ops.ssd import ssd

__all__ = [
    "CompanionBank",
    "DenseBank",
    "DiagonalBank",
    "bilinear",
    "causal_conv",
    "chunked",
    "companion_matrix",
    "companion_step",
    "convolve",
    "delta_rule",
    "dplr_bilinear",
    "dplr_factors",
    "dplr_kernel",
    "fft_conv",
    "growing_chunked",
    "kernel",
    "low_rank_step",
    "mimo",
    "naive",
    "naive_delta",
    "naive_dense",
    "naive_mimo",
    "naive_selective",
    "powers",
    "recurrent",
    "scan",
    "selective_scan",
    "ssd",
    "state_passing",
    "step",
    "toeplitz",
    "zoh",
]
