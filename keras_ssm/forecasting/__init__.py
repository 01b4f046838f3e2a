"""Data of forecasts: series, their covariates and windows, and what a forecast is measured by."""

from keras_ssm.forecasting.panel import Panel
from keras_ssm.forecasting.ridge_weights import best_ridge, ridge_weights
from keras_ssm.forecasting.series import Series
from keras_ssm.forecasting.windows import windows

__all__ = ["Panel", "Series", "best_ridge", "ridge_weights", "windows"]
