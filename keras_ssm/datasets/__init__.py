"""Small data sets: those of other packages in the splits of the presets, and a recording."""

from keras_ssm.datasets.digits import digits
from keras_ssm.datasets.ecg import ecg

__all__ = ["digits", "ecg"]
