"""Training by recipes: runs that can be interrupted, scores, seeds, and the presets of them."""

from keras_ssm.training.baselines import BASELINES, cnn, lstm
from keras_ssm.training.beat_events import Beats, beat_scores, beats_of
from keras_ssm.training.classification_recipe import ClassificationRecipe
from keras_ssm.training.clock import one_epoch
from keras_ssm.training.epoch_data import EpochData, FollowEpochs
from keras_ssm.training.forecast_recipe import ForecastRecipe, History
from keras_ssm.training.ngram import NGram
from keras_ssm.training.pan_tompkins import PanTompkins
from keras_ssm.training.recipe import Recipe, Splits
from keras_ssm.training.results import append_rows, summary, write_rows
from keras_ssm.training.rows import Part, ShuffledRows, predict, split
from keras_ssm.training.run import train
from keras_ssm.training.signal_baselines import (
    LogMel,
    beat_cnn,
    causal_cnn,
    log_mel_cnn,
    log_mel_lstm,
    waveform_cnn,
)
from keras_ssm.training.systems import MIXERS, S4_FAMILY, cosine, make_mixer

__all__ = [
    "BASELINES",
    "MIXERS",
    "S4_FAMILY",
    "Beats",
    "ClassificationRecipe",
    "EpochData",
    "FollowEpochs",
    "ForecastRecipe",
    "History",
    "LogMel",
    "NGram",
    "PanTompkins",
    "Part",
    "Recipe",
    "ShuffledRows",
    "Splits",
    "append_rows",
    "beat_cnn",
    "beat_scores",
    "beats_of",
    "causal_cnn",
    "cnn",
    "cosine",
    "log_mel_cnn",
    "log_mel_lstm",
    "lstm",
    "make_mixer",
    "one_epoch",
    "predict",
    "split",
    "summary",
    "train",
    "waveform_cnn",
    "write_rows",
]
