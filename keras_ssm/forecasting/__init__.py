"""Data of forecasts, measures of forecasts, and the baselines that they have to beat."""

from keras_ssm.forecasting.backtest import Backtest
from keras_ssm.forecasting.baselines import LSTM, Baseline, DLinear, Naive, Ridge, SeasonalNaive
from keras_ssm.forecasting.conformal import half_widths, with_intervals
from keras_ssm.forecasting.metrics import coverage, mae, mase, mse, rmse, weighted_quantile_loss
from keras_ssm.forecasting.panel import Panel
from keras_ssm.forecasting.ridge_weights import best_ridge, ridge_weights
from keras_ssm.forecasting.series import Series
from keras_ssm.forecasting.windows import windows

__all__ = [
    "LSTM",
    "Backtest",
    "Baseline",
    "DLinear",
    "Naive",
    "Panel",
    "Ridge",
    "SeasonalNaive",
    "Series",
    "best_ridge",
    "coverage",
    "half_widths",
    "mae",
    "mase",
    "mse",
    "ridge_weights",
    "rmse",
    "weighted_quantile_loss",
    "windows",
    "with_intervals",
]
