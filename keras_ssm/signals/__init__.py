"""Signals from files: audio and records of hearts and other biosignals, at the rate you want."""

from keras_ssm.signals.aami import AAMI_CLASSES, aami_class
from keras_ssm.signals.match_events import match_events
from keras_ssm.signals.read_record import Record, read_record
from keras_ssm.signals.read_wav import Recording, read_wav
from keras_ssm.signals.resample import resample

__all__ = [
    "AAMI_CLASSES",
    "Record",
    "Recording",
    "aami_class",
    "match_events",
    "read_record",
    "read_wav",
    "resample",
]
