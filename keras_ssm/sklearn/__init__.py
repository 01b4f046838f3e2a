"""Estimators of scikit-learn and aeon around the models; they need the extra `sklearn`."""

import importlib
import importlib.util

__all__ = ["SSMClassifierEstimator", "SSMRegressorEstimator"]

_FILES = {
    "SSMClassifierEstimator": "ssm_classifier_estimator",
    "SSMRegressorEstimator": "ssm_regressor_estimator",
}


def __getattr__(name):
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "The estimators need scikit-learn 1.6 or later: pip install 'keras-ssm[sklearn]'"
        )
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
