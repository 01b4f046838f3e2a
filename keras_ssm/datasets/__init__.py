"""Small data sets: of other packages in the splits of the presets, one recorded, one generated."""

from keras_ssm.datasets.digits import digits
from keras_ssm.datasets.ecg import ecg
from keras_ssm.datasets.listops import listops, listops_ids, listops_value

__all__ = ["digits", "ecg", "listops", "listops_ids", "listops_value"]
