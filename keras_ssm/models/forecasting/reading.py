"""Rows that are read once: forecasts from any of them, and a state of constant size."""

import copy

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.models.forecasting.forecaster_inputs import last_seen, packed_rows, windows_at
from keras_ssm.ops import backend

LONGEST = 2048  # steps of one call; shorter calls take powers of two: few are compiled


class Reading:
    """What a forecaster keeps of the rows that it has read, and how it reads on.

    A row is one variable of one series, in units of the training part.

    Args:
        model: `SSMForecaster`.
        rows: int. Number of rows.

    Attributes:
        state: dict of NumPy arrays `(rows, ...)`: the state of the graph.
        window: array `(rows, lookback)`. The last values, NaN before the first.
        covariates: array `(rows, features)`. Those of the last step.
    """

    def __init__(self, model, rows: int):
        self.model = model
        self.state = tree.map_structure(
            lambda spec: np.zeros(tuple(spec.shape), spec.dtype), model.state_spec(rows)
        )
        self.window = np.full((rows, model.lookback), np.nan)
        self.covariates = np.zeros((rows, model.columns.width - 1))

    def __len__(self):
        return len(self.window)

    def rows(self, places):
        """A reading of some of the rows, by index; what it reads changes none but itself."""
        selected = copy.copy(self)
        selected.state = tree.map_structure(lambda part: part[places], self.state)
        selected.window, selected.covariates = self.window[places], self.covariates[places]
        return selected

    def read(
        self,
        values: np.ndarray,
        covariates: np.ndarray,
        origins: np.ndarray,
        future: np.ndarray | None = None,
    ) -> np.ndarray:
        """Reads more steps, and returns the forecasts after some of them.

        Args:
            values: array `(rows, steps)`, NaN where missing.
            covariates: array `(rows, steps, features)`, finite.
            origins: integers `(places,)` from 0, increasing. Forecasts follow these steps.
            future: array `(rows, places, steps of a forecast, features)` or `None`. Covariates of
                the forecasts.

        Returns:
            Array `(rows, places, steps of a forecast, outputs)`, NaN where a row has no value yet.
        """
        outputs, start = [], 0
        steps = values.shape[1]
        while start < steps:
            stop = min(start + LONGEST, steps)
            origins_here = np.flatnonzero((origins >= start) & (origins < stop))
            ahead = None if future is None else future[:, origins_here]
            part = slice(start, stop)
            y = self._read(
                values[:, part], covariates[:, part], origins[origins_here] - start, ahead
            )
            outputs.append(y)
            start = stop
        return np.concatenate(outputs, axis=1)

    def _read(self, values, covariates, origins, future, observe=True):
        model, columns = self.model, self.model.columns
        observed = ~np.isnan(values) & observe
        filled = last_seen(values, self.window[:, -1])
        windows = windows_at(
            filled, np.tile(origins, (len(values), 1)), model.lookback, self.window
        )
        counts = np.cumsum(observed, axis=1)[:, origins]
        x = np.concatenate([values[..., None], covariates], axis=-1)
        # Few sizes, since backends compile for each. Added steps are masked, or their outputs cut.
        x, mask = packed_rows(x, observed, _power_of_two(values.shape[1]))
        places = _power_of_two(max(1, len(origins)))
        inputs = {
            "inputs": x,
            "padding_mask": mask,
            "origins": _more(counts, places),
            "window": _more(np.nan_to_num(windows), places),
        }
        if columns.future:
            if future is None:  # where nothing is forecast
                future = np.zeros((len(values), 0, *model.input["future"].shape[2:]))
            inputs["future"] = _more(future, places)
        y, self.state = programs(model).read(self.state, inputs)
        joined = np.concatenate([self.window, filled], axis=1)
        self.window = joined[:, -model.lookback :].copy()
        self.covariates = covariates[:, -1]
        y = y[:, : len(origins)].astype("float64")
        y[np.isnan(windows).any(axis=-1)] = np.nan
        return y

    def forecast(self, future: np.ndarray | None = None) -> np.ndarray:
        """The forecast after the rows read so far; nothing is read.

        Args:
            future: array `(rows, 1, steps of a forecast, features)` or `None`.

        Returns:
            Array `(rows, 1, steps of a forecast, outputs)`.
        """
        copied = copy.copy(self)
        nothing = np.full((len(self), 1), np.nan)
        window = np.concatenate([nothing, self.window], axis=1)
        copied.window = window[:, :-1]  # the masked step moves it back to its place
        y = copied._read(
            self.window[:, -1:], self.covariates[:, None], np.array([0]), future, False
        )
        return y

    @classmethod
    def joined(cls, readings: list["Reading"]) -> "Reading":
        """Readings of one forecaster as one, their rows in that order."""
        joint = copy.copy(readings[0])
        states = [reading.state for reading in readings]
        joint.state = tree.map_structure(lambda *parts: np.concatenate(parts), *states)
        joint.window = np.concatenate([reading.window for reading in readings])
        joint.covariates = np.concatenate([reading.covariates for reading in readings])
        return joint

    def become(self, other: "Reading") -> None:
        """Goes on from where another one stands."""
        self.state, self.window, self.covariates = other.state, other.window, other.covariates

    # What is kept in a file

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as a dict of arrays, which `numpy.savez` keeps."""
        leaves = tree.flatten_with_path(self.state)
        named = {"/".join(map(str, path)): leaf for path, leaf in leaves}
        return {**named, "window": self.window, "covariates": self.covariates}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes on from what `arrays` gave, on this backend or another.

        Raises:
            ValueError: for another structure or other shapes.
        """
        current = self.arrays()
        shapes = {name: np.shape(part) for name, part in arrays.items()}
        expected = {name: part.shape for name, part in current.items()}
        if shapes != expected:
            raise ValueError(f"The state must have parts of shapes {expected}. Received: {shapes}")
        leaves = [
            np.asarray(arrays["/".join(map(str, path))], leaf.dtype)
            for path, leaf in tree.flatten_with_path(self.state)
        ]
        self.state = tree.pack_sequence_as(self.state, leaves)
        self.window = np.array(arrays["window"], "float64")
        self.covariates = np.array(arrays["covariates"], "float64")


class _Programs:
    """The compiled reading of a forecaster, for the weights that it has."""

    def __init__(self, model):
        self.model = model
        self.weights = model.variables
        self.floats = keras.backend.standardize_dtype(model.input["inputs"].dtype)
        self._run = backend.program(
            self._forward, self.weights, model.jit_compile, model.run_eagerly
        )

    def fit(self, model):
        """Whether these are the weights of the model still."""
        return [*map(id, self.weights)] == [*map(id, model.variables)]

    def read(self, state, inputs):
        inputs = {
            name: np.asarray(
                part, {"padding_mask": bool, "origins": "int32"}.get(name, self.floats)
            )
            for name, part in inputs.items()
        }
        y, state = self._run(state, inputs)
        return ops.convert_to_numpy(y), tree.map_structure(_numpy, state)

    def _forward(self, weights, state, inputs):
        if weights is None:
            return self._call(state, inputs)
        with keras.StatelessScope(state_mapping=zip(self.weights, weights, strict=True)):
            return self._call(state, inputs)

    def _call(self, state, inputs):
        y, following = self.model(inputs, training=False, initial_state=state, return_state=True)
        return y, tree.map_structure(lambda a, b: ops.cast(a, b.dtype), following, state)


def programs(model):
    """The `_Programs` of a model, made when they are first needed or other weights are there."""
    programs = vars(model).get("_programs")
    if programs is None or not programs.fit(model):
        programs = vars(model)["_programs"] = _Programs(model)
    return programs


def _numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def _power_of_two(count):
    return 1 << (count - 1).bit_length()


def _more(x, count):
    """x with zeros behind its second axis, up to a count."""
    edges = [(0, 0), (0, count - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    return np.pad(x, edges)
