"""Forecasts after many rows of a history, which is read once."""

import copy

import numpy as np

from keras_ssm.models.forecasting.reading import Reading

ROWS = 256  # series that are read side by side
LOOPS = 2048  # closed loops that run side by side


def forecasts_after(model, rows, origins, reading=None):
    """The forecasts of rows after some of their steps.

    Args:
        model: `SSMForecaster`.
        rows: `PanelRows`.
        origins: integers `(places,)`, increasing. Forecasts follow these steps.
        reading: `Reading` of what was read before, which goes on, or `None`.

    Returns:
        Array `(rows, places, horizon, outputs)` in the units of the training part; NaN where a
        row has no value yet.
    """
    origins = np.asarray(origins)
    count, forecasts, read = len(rows.values), [], []
    for start in range(0, count, ROWS):
        place = slice(start, start + ROWS)
        part = rows.part(place)
        part_reading = Reading(model, len(part.values)) if reading is None else reading.rows(place)
        forecasts.append(_forecasts(model, part, origins, part_reading))
        read.append(part_reading)
    if reading is not None:
        reading.become(Reading.joined(read))
    return np.concatenate(forecasts)


def _forecasts(model, rows, origins, reading):
    if not len(origins):
        reading.read(rows.values, rows.covariates, np.zeros(0, int))
        return np.zeros((len(rows.values), 0, model.horizon, model.shortcut_outputs))
    if not model.feeds_back:
        future = rows.future(origins, model.horizon)
        return reading.read(rows.values, rows.covariates, origins, future)
    ahead = rows.future(origins, model.horizon)
    block = max(1, LOOPS // len(rows.values))
    outputs, start = [], 0
    for first in range(0, len(origins), block):
        block_origins = origins[first : first + block]
        readings, heads = [], []
        for i, origin in enumerate(block_origins):
            part = slice(start, origin + 1)
            next_step = None if ahead is None else ahead[:, first + i, None, :1]
            last = np.array([origin - start])
            y = reading.read(rows.values[:, part], rows.covariates[:, part], last, next_step)
            heads.append(y)
            readings.append(copy.copy(reading))
            start = origin + 1
        later = None
        if ahead is not None:
            later = np.concatenate([ahead[:, first + i] for i in range(len(block_origins))])
        y = closed_loop(Reading.joined(readings), np.concatenate(heads), model.horizon, later)
        outputs.append(np.stack(np.split(y, len(block_origins)), axis=1))
    if start < rows.values.shape[1]:  # rows after the last origin are read too
        part = slice(start, None)
        reading.read(rows.values[:, part], rows.covariates[:, part], np.zeros(0, int), None)
    return np.concatenate(outputs, axis=1)


def closed_loop(reading, first, horizon, ahead=None):
    """Feeds forecasts of one step back until the horizon is reached.

    Historic covariates stay what they were last; known ones are those of the step.

    Args:
        reading: `Reading`, which goes on.
        first: array `(rows, 1, 1, 1)`. The forecast of the first step.
        horizon: int.
        ahead: array `(rows, horizon, features)` or `None`. Known covariates.

    Returns:
        Array `(rows, horizon, 1)`.
    """
    columns = reading.model.columns.known_features
    steps = [first[:, 0]]
    for step in range(1, horizon):
        covariates = reading.covariates.copy()
        future = None
        if ahead is not None:
            covariates[:, columns] = ahead[:, step - 1]
            future = ahead[:, step, None, None]
        value = steps[-1][:, :, 0]
        y = reading.read(value, covariates[:, None], np.array([0]), future)
        steps.append(y[:, 0])
    return np.concatenate(steps, axis=1)
