"""Initial values of state-space models: pure NumPy float64 functions that run once."""

from keras_ssm.initializers.block_diagonal import block_diagonal
from keras_ssm.initializers.diagonal import diagonal
from keras_ssm.initializers.dplr import dplr
from keras_ssm.initializers.hippo import NPLR, low_rank, nplr, transition
from keras_ssm.initializers.implicit_filter import filter_decay, filter_positions
from keras_ssm.initializers.legs_transfer import blaschke, legs_state_transfer
from keras_ssm.initializers.long_kernel import long_kernel
from keras_ssm.initializers.ptd import PTD, ptd
from keras_ssm.initializers.random import lecun_normal
from keras_ssm.initializers.ring import ring
from keras_ssm.initializers.skew import skew_hippo
from keras_ssm.initializers.timescale import log_uniform_step

__all__ = [
    "NPLR",
    "PTD",
    "blaschke",
    "block_diagonal",
    "diagonal",
    "dplr",
    "filter_decay",
    "filter_positions",
    "lecun_normal",
    "legs_state_transfer",
    "log_uniform_step",
    "long_kernel",
    "low_rank",
    "nplr",
    "ptd",
    "ring",
    "skew_hippo",
    "transition",
]
