"""Baselines that a forecaster has to beat, with the methods of the forecaster."""

from keras_ssm.forecasting.baselines.baseline import Baseline
from keras_ssm.forecasting.baselines.dlinear import DLinear
from keras_ssm.forecasting.baselines.lstm import LSTM
from keras_ssm.forecasting.baselines.naive import Naive
from keras_ssm.forecasting.baselines.ridge import Ridge
from keras_ssm.forecasting.baselines.seasonal_naive import SeasonalNaive

__all__ = ["LSTM", "Baseline", "DLinear", "Naive", "Ridge", "SeasonalNaive"]
