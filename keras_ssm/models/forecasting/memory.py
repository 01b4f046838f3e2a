"""The series that a forecaster goes on with: their states, units, and where they end."""

import numpy as np

from keras_ssm.forecasting.time_index import regular, same_kind
from keras_ssm.models.forecasting.reading import Reading


class Memory:
    """What `predict` leaves, so that `update` goes on from it.

    Args:
        model: `SSMForecaster`.
        panel: `Panel`. The rows that were read.
        rows: `PanelRows` of them.
        reading: `Reading` of them.
        data, static: what the panel was read from.

    Attributes:
        ends: dict from the name of a series to the last entry of its index.
    """

    def __init__(self, model, panel, rows, reading, data, static):
        self.model = model
        self.reading = reading
        self.data, self.static = data, static
        self.center, self.scale = rows.center, rows.scale
        self.kind = panel.kind
        self.names = [series.name for series in panel.series]
        self.ends = {s.name: None if s.index is None else s.index[-1:] for s in panel.series}

    def places(self, panel):
        """The rows of the series of a panel, as integers; -1 for a series that is new."""
        count = len(panel.variables)
        if len(self.names) == len(panel.series) and all(n is None for n in self.names):
            return np.arange(len(self.names) * count)  # arrays have no names: their places count
        lanes = []
        for series in panel.series:
            number = self.names.index(series.name) if series.name in self.names else -1
            lanes += [number * count + v if number >= 0 else -1 for v in range(count)]
        return np.array(lanes)

    def check(self, panel):
        """Raises a `ValueError` for rows that cannot be those that follow: another kind or count.

        Series without names are known by their places alone.
        """
        unnamed = all(name is None for name in self.names)
        if panel.kind != self.kind or (unnamed and len(panel.series) != len(self.names)):
            raise ValueError(
                "`new_rows` must be of the kind of the rows that were read before, "
                f"{self.kind!r} with {len(self.names)} series; `reset` begins anew. "
                f"Received: {panel.kind!r} with {len(panel.series)} series"
            )

    def before(self, panel):
        """The covariates of the last step of each row of a panel, zero for a new series."""
        places = self.places(panel)
        covariates = np.zeros((len(places), self.reading.covariates.shape[1]))
        covariates[places >= 0] = self.reading.covariates[places[places >= 0]]
        return covariates

    def gaps(self, panel):
        """How many rows are missing between the end of each series and the rows of a panel.

        Raises:
            ValueError: if rows were read already, or dates are of another kind.
        """
        missing_rows = []
        for series in panel.series:
            end = self.ends.get(series.name)
            if end is None or series.index is None:
                missing_rows.append(0)
                continue
            what = "The new rows" if series.name is None else f"The new rows of {series.name!r}"
            first = series.index[:1]
            if not same_kind(first, end):
                raise ValueError(
                    f"{what} must have dates of the time zone and kind of those before. "
                    f"Received: {first.dtype} after {end.dtype}"
                )
            if getattr(end, "tz", None) is not None:
                first = first.tz_convert(end.tz)
            if first[0] <= end[0]:
                raise ValueError(
                    f"{what} must follow the last one that was read, {end[0]}. Received: {first[0]}"
                )
            edges = end.append(first)
            missing_rows.append(len(regular(edges, panel.frequency, what)) - 2)
        return np.array(missing_rows)

    def take(self, panel, rows):
        """The rows of a panel as those that go on: with the units of before, and their reading.

        Returns:
            Tuple of `PanelRows` and a `Reading`.
        """
        places = self.places(panel)
        known = places >= 0
        center, scale = rows.center.copy(), rows.scale.copy()
        center[known], scale[known] = self.center[places[known]], self.scale[places[known]]
        ratio, shift = rows.scale / scale, (rows.center - center) / scale
        values = rows.values * ratio[:, None] + shift[:, None]
        reading = Reading(self.model, len(places))
        if known.any():
            joined = Reading.joined([self.reading, reading])
            old = len(self.reading)
            reading = joined.rows(np.where(known, places, old + np.arange(len(places))))
        return rows._replace(values=values, center=center, scale=scale), reading

    def put(self, panel, rows, reading, data):
        """Keeps what was read of the series of a panel."""
        places = self.places(panel)
        count = len(panel.variables)
        size = len(self.reading)
        new = np.flatnonzero(places < 0)
        joined = Reading.joined([self.reading, reading])
        order = np.arange(size + len(new))
        known = places >= 0
        order[places[known]] = size + np.flatnonzero(known)
        order[size:] = size + new
        self.reading = joined.rows(order)
        self.center = np.concatenate([self.center, rows.center[new]])
        self.scale = np.concatenate([self.scale, rows.scale[new]])
        self.names += [panel.series[i // count].name for i in new[::count]]
        for series in panel.series:
            if series.index is not None:
                self.ends[series.name] = series.index[-1:]
        self.data = data
