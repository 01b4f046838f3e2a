"""Task models on keras_hub: backbone, heads and preprocessors."""

from keras_ssm.models.classification.ssm_classifier import SSMClassifier
from keras_ssm.models.classification.ssm_image_classifier import SSMImageClassifier
from keras_ssm.models.classification.ssm_pair_classifier import SSMPairClassifier
from keras_ssm.models.classification.ssm_pair_classifier_preprocessor import (
    SSMPairClassifierPreprocessor,
)
from keras_ssm.models.forecasting.forecast_stream import ForecastStream
from keras_ssm.models.forecasting.ssm_forecaster import SSMForecaster
from keras_ssm.models.image_preprocessor import ImagePreprocessor
from keras_ssm.models.language.generation_state import GenerationState
from keras_ssm.models.language.generation_stream import GenerationStream
from keras_ssm.models.language.ssm_causal_lm import SSMCausalLM
from keras_ssm.models.language.ssm_causal_lm_preprocessor import SSMCausalLMPreprocessor
from keras_ssm.models.regression.ssm_regressor import SSMRegressor
from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.ssm_task import SSMTask
from keras_ssm.models.streaming.detection import Detection
from keras_ssm.models.streaming.detector import Detector
from keras_ssm.models.streaming.sequence_stream import SequenceStream

__all__ = [
    "Detection",
    "Detector",
    "ForecastStream",
    "GenerationState",
    "GenerationStream",
    "ImagePreprocessor",
    "SSMBackbone",
    "SSMCausalLM",
    "SSMCausalLMPreprocessor",
    "SSMClassifier",
    "SSMForecaster",
    "SSMImageClassifier",
    "SSMPairClassifier",
    "SSMPairClassifierPreprocessor",
    "SSMRegressor",
    "SSMTask",
    "SequencePreprocessor",
    "SequenceStream",
]
