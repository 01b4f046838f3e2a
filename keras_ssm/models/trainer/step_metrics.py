"""Metrics of outputs of which some count for nothing: padded steps, labels that are ignored."""

import keras
from keras import ops

from keras_ssm.keras_internals import parts_of_metrics
from keras_ssm.layers.step_mask import StepMask
from keras_ssm.models.trainer import targets


def update(compiled, y, y_pred, sample_weight, valid):
    """Updates the metrics of a model, whatever way each of them has to leave outputs out.

    Means of a function, and metrics of one's own, read the mask of the predictions, as Keras does.
    The others of Keras know weights alone, of rows: they get a row for each output.

    Args:
        compiled: what Keras made of the metrics at `compile`.
        y: tensor. Targets.
        y_pred: tensor `(batch, ..., outputs)`.
        sample_weight: tensor or `None`.
        valid: boolean tensor `(batch, ...)`.
    """
    alike = like_outputs(y, y_pred)
    masked = StepMask()([y_pred, valid])
    metrics, weighted = parts_of_metrics(compiled, alike, y_pred)
    for group, weights in ((metrics, None), (weighted, sample_weight)):
        for metric in group:
            if not targets.is_of_keras(metric):
                metric.update_state(y, masked, sample_weight=weights)
            elif isinstance(metric, keras.metrics.MeanMetricWrapper):
                metric.update_state(_cleared(alike, valid), masked, sample_weight=weights)
            else:
                _update_rows(metric, alike, y_pred, weights, valid)


def like_outputs(y, y_pred):
    """Targets with the last axis of the outputs, where that is 1 and lacks in them.

    Keras would take the axis from the outputs, and the mean over steps for one over outputs.
    """
    lacks = len(y.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1
    return ops.expand_dims(y, -1) if lacks else y


def _update_rows(metric, y, y_pred, weights, valid):
    count = ops.cast(valid, y_pred.dtype)
    if weights is not None:
        weights = ops.cast(weights, y_pred.dtype)
        for _ in range(len(valid.shape) - len(weights.shape)):
            weights = ops.expand_dims(weights, -1)
        count = count * weights
    y = _cleared(y, valid)
    flat = (-1,) if len(y.shape) == len(valid.shape) else (-1, y.shape[-1])
    metric.update_state(
        ops.reshape(y, flat),
        ops.reshape(y_pred, (-1, y_pred.shape[-1])),
        sample_weight=ops.reshape(count, (-1,)),
    )


def _cleared(y, valid):
    """Targets whose ignored entries hold an existing class."""
    for _ in range(len(y.shape) - len(valid.shape)):
        valid = ops.expand_dims(valid, -1)
    return ops.where(valid, y, ops.zeros_like(y))
