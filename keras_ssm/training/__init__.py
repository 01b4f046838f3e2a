"""Training by recipes: runs that can be interrupted, scores, seeds, and the presets of them."""

from keras_ssm.training.baselines import BASELINES, cnn, lstm
from keras_ssm.training.classification_recipe import ClassificationRecipe
from keras_ssm.training.epoch_data import EpochData, FollowEpochs
from keras_ssm.training.forecast_recipe import ForecastRecipe, History
from keras_ssm.training.recipe import Recipe, Splits
from keras_ssm.training.results import append_rows, summary, write_rows
from keras_ssm.training.rows import Part, ShuffledRows, predict, split
from keras_ssm.training.run import train
from keras_ssm.training.signal_baselines import (
    LogMel,
    beat_cnn,
    log_mel_cnn,
    log_mel_lstm,
    waveform_cnn,
)
from keras_ssm.training.systems import MIXERS, cosine, make_mixer

__all__ = [
    "BASELINES",
    "MIXERS",
    "ClassificationRecipe",
    "EpochData",
    "FollowEpochs",
    "ForecastRecipe",
    "History",
    "LogMel",
    "Part",
    "Recipe",
    "ShuffledRows",
    "Splits",
    "append_rows",
    "beat_cnn",
    "cnn",
    "cosine",
    "log_mel_cnn",
    "log_mel_lstm",
    "lstm",
    "make_mixer",
    "predict",
    "split",
    "summary",
    "train",
    "waveform_cnn",
    "write_rows",
]
