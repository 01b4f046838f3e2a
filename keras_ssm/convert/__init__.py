"""Published checkpoints as models of this package, and back."""

from keras_ssm.convert.checkpoint import FORMATS, load_checkpoint
from keras_ssm.convert.convert_checkpoint import convert_checkpoint
from keras_ssm.convert.export_checkpoint import TARGETS, export_checkpoint
from keras_ssm.convert.layer_tensors import export_layer, load_layer
from keras_ssm.convert.recorded_outputs import Comparison, compare_recorded
from keras_ssm.convert.report import Report

__all__ = [
    "FORMATS",
    "TARGETS",
    "Comparison",
    "Report",
    "compare_recorded",
    "convert_checkpoint",
    "export_checkpoint",
    "export_layer",
    "load_checkpoint",
    "load_layer",
]
