"""Descriptions of presets: pictures of what they do, their calibration, the cost of a step."""

from keras_ssm.gallery.calibration import calibration_error
from keras_ssm.gallery.costs import step_cost
from keras_ssm.gallery.halving import halve
from keras_ssm.gallery.page import page
from keras_ssm.gallery.pictures import pictures
from keras_ssm.gallery.subject import Subject
from keras_ssm.gallery.zoo import collect, dress, redraw

__all__ = [
    "Subject",
    "calibration_error",
    "collect",
    "dress",
    "halve",
    "page",
    "pictures",
    "redraw",
    "step_cost",
]
