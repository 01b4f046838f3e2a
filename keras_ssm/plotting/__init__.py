"""Pictures of systems and predictions, as matplotlib figures."""

from keras_ssm.plotting.answers import plot_answers
from keras_ssm.plotting.confusion import plot_confusion_matrix
from keras_ssm.plotting.curves import plot_learning_curves
from keras_ssm.plotting.eigenvalues import plot_eigenvalues
from keras_ssm.plotting.forecast import plot_forecast
from keras_ssm.plotting.initializations import plot_initializations
from keras_ssm.plotting.reliability import plot_reliability
from keras_ssm.plotting.responses import plot_frequency_response, plot_kernels
from keras_ssm.plotting.step_errors import plot_step_errors
from keras_ssm.plotting.steps import plot_step_predictions
from keras_ssm.plotting.streaming import plot_streaming
from keras_ssm.plotting.timescales import plot_timescales

__all__ = [
    "plot_answers",
    "plot_confusion_matrix",
    "plot_eigenvalues",
    "plot_forecast",
    "plot_frequency_response",
    "plot_initializations",
    "plot_kernels",
    "plot_learning_curves",
    "plot_reliability",
    "plot_step_errors",
    "plot_step_predictions",
    "plot_streaming",
    "plot_timescales",
]
