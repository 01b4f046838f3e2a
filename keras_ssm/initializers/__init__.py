"""Initial values of state-space models: pure NumPy float64 functions that run once."""

from keras_ssm.initializers.diagonal import diagonal
from keras_ssm.initializers.hippo import NPLR, low_rank, nplr, transition
from keras_ssm.initializers.timescale import log_uniform_step

__all__ = ["NPLR", "diagonal", "log_uniform_step", "low_rank", "nplr", "transition"]
