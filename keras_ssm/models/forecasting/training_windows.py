"""Batches of a forecaster: segments of rows, forecast after several of their steps."""

import functools

import keras
import numpy as np

from keras_ssm.models.forecasting.forecaster_inputs import last_seen, packed_rows


class Segments:
    """Cuts segments out of rows, with the windows and targets of some of their steps.

    Args:
        model: `SSMForecaster`.
        rows: `PanelRows`.
        length: int. Steps of a segment. Before the first step of a row stands nothing.
    """

    def __init__(self, model, rows, length: int):
        self.model = model
        self.length = length
        self.steps = model.shortcut.steps
        self.lookback = model.lookback
        self.floats = keras.backend.standardize_dtype(model.input["inputs"].dtype)
        steps = rows.values.shape[1]
        empty = [(0, 0), (length, 0), (0, 0)]
        x = np.concatenate([rows.values[..., None], rows.covariates], axis=-1)
        self.x = np.pad(x, empty, constant_values=np.nan).astype(self.floats)
        self.filled = self._filled(rows.values)
        ahead = self.steps
        self.targets = np.pad(rows.values, [(0, 0), (0, ahead)], constant_values=np.nan)
        self.known = None
        if rows.ahead is not None:
            missing = max(0, steps + ahead - rows.ahead.shape[1])
            self.known = np.pad(rows.ahead, [(0, 0), (0, missing), (0, 0)])

    def _filled(self, values):
        """The values seen last, a window more of them than steps; the first one before it."""
        filled = last_seen(values)
        first = np.argmax(~np.isnan(filled), axis=1)[:, None]
        start = np.take_along_axis(filled, first, axis=1)
        filled = np.where(np.isnan(filled), start, filled)
        return np.concatenate([np.repeat(start, self.lookback, axis=1), filled], axis=1)

    def windows(self, rows, origins):
        """The values of the shortcut up to some steps: `(..., lookback)`."""
        places = origins[..., None] + 1 + np.arange(self.lookback)
        return self.filled[rows[..., None], places]

    def following(self, rows, origins, between=False):
        """The values after some steps: `(..., steps of a forecast)`, NaN where unknown.

        With `between` those that are missing lie on a line between their neighbours.
        """
        places = origins[..., None] + 1 + np.arange(self.steps)
        targets = self._between if between else self.targets
        return targets[rows[..., None], places]

    @functools.cached_property
    def _between(self):
        filled, places = self.targets.copy(), np.arange(self.targets.shape[1])
        for row in filled:
            known = ~np.isnan(row)
            if known.any():
                row[:] = np.interp(places, places[known], row[known])
        return filled

    def batch(self, rows, origins, valid=None):
        """A batch of segments that end with the last of the steps to forecast after.

        Args:
            rows: integers `(batch,)`.
            origins: integers `(batch, places)`, increasing.
            valid: boolean array `(batch, places)` or `None`. Which of them count.

        Returns:
            Tuple `(x, y, sample_weight)` as `keras.Model.fit` takes it.
        """
        start = origins[:, -1:] + 1 - self.length
        places = start + np.arange(self.length) + self.length  # `x` has nothing before its rows
        x = self.x[rows[:, None], places]
        observed = ~np.isnan(x[..., 0])
        packed, mask = packed_rows(x, observed, self.length)
        packed[~mask] = 0.0
        counts = np.cumsum(observed, axis=1)
        lanes = np.broadcast_to(rows[:, None], origins.shape)
        inputs = {
            "inputs": packed,
            "padding_mask": mask,
            "origins": np.take_along_axis(counts, origins - start, axis=1).astype("int32"),
            "window": self.windows(lanes, origins).astype(self.floats),
        }
        if self.known is not None:
            ahead = origins[..., None] + 1 + np.arange(self.steps)
            inputs["future"] = self.known[lanes[..., None], ahead].astype(self.floats)
        y = self.following(lanes, origins)
        weight = ~np.isnan(y)
        if valid is not None:
            weight &= valid[..., None]
        y = np.where(weight, y, 0.0)[..., None]
        return inputs, y.astype(self.floats), weight.astype(self.floats)


class TrainingWindows(keras.utils.PyDataset):
    """Random segments of the training part: the seed and the number of the epoch decide which.

    Args:
        segments: `Segments`.
        first, last: integers `(rows,)`. Between which steps, both included, a forecast of a row
            may follow.
        span: int. Steps that the forecasts of a segment may lie apart.
        batch_size, places, batches, seed: int. Segments a batch, forecasts a segment, batches an
            epoch.
    """

    def __init__(self, segments, first, last, span, batch_size, places, batches, seed):
        super().__init__()
        self.segments = segments
        self.first, self.last = first, last
        self.span = span
        self.batch_size, self.places, self.batches = batch_size, places, batches
        self.seed, self.epoch = seed, 0
        counts = np.maximum(last - first + 1, 0)
        self.chances = np.cumsum(counts) / counts.sum()

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, self.epoch, index])
        rows = np.searchsorted(self.chances, rng.random(self.batch_size), side="right")
        rows = np.minimum(rows, len(self.first) - 1)
        first, last = self.first[rows], self.last[rows]
        end = first + (rng.random(self.batch_size) * (last - first + 1)).astype(int)
        low = np.maximum(end - self.span, first)
        if self.places > self.span:  # all windows
            places = np.maximum(end[:, None] - np.arange(self.places)[::-1], low[:, None])
            return self.segments.batch(rows, places)
        places = rng.random((self.batch_size, self.places))
        places = low[:, None] + (places * (end - low + 1)[:, None]).astype(int)
        places[:, -1] = end
        return self.segments.batch(rows, np.sort(places, axis=1))


class ValidationWindows(keras.utils.PyDataset):
    """Segments that cover the forecasts of the validation part, each once.

    Args:
        segments: `Segments`.
        first, last: integers `(rows,)`. Steps after which a forecast of a row may follow.
        span: int. Steps that the forecasts of a segment may lie apart.
        stride: int. Steps from one forecast to the next.
        batch_size: int.
    """

    def __init__(self, segments, first, last, span, stride, batch_size):
        super().__init__()
        self.segments, self.batch_size = segments, batch_size
        places = span // stride + 1
        cut = []
        for row, (start, stop) in enumerate(zip(first, last, strict=True)):
            origins = np.arange(stop, start - 1, -stride)[::-1]
            for end in range(len(origins), 0, -places):
                row_origins = origins[max(0, end - places) : end]
                lacking = places - len(row_origins)
                valid = np.arange(places) >= lacking
                cut.append(
                    (row, np.concatenate([np.repeat(row_origins[:1], lacking), row_origins]), valid)
                )
        rows, origins, valid = zip(*cut, strict=True)
        self.rows, self.origins, self.valid = np.array(rows), np.stack(origins), np.stack(valid)

    def __len__(self):
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.segments.batch(self.rows[part], self.origins[part], self.valid[part])
