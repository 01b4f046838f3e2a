"""What `fit` finds beside the weights: names, units, and how wide intervals are."""

import numpy as np

from keras_ssm.forecasting.backtest import seasonal_scale

SMALLEST = 1e-12  # a scale below is that of a constant


class Fitted:
    """Facts of a training, as a configuration of JSON keeps them.

    Args:
        facts: dict of `roles` (see `Panel.roles`), `series` (names), `center` and `scale`
            (lists `(series, variables)`), `covariates` (center and scale of each feature),
            `season`, `seasonal_scale` (mean change from season to season), `alpha`, `epoch` and
            `half_widths` (pairs of a level and lists `(horizon, variables)`).
    """

    def __init__(self, facts: dict):
        self.facts = facts
        self.roles = facts["roles"]
        self.center = np.array(facts["center"], "float64")
        self.scale = np.array(facts["scale"], "float64")
        self.covariate_center, self.covariate_scale = (
            np.array(part, "float64") for part in facts["covariates"]
        )
        names = facts["series"]
        self.places = {name: i for i, name in enumerate(names) if names.count(name) == 1}

    @classmethod
    def of(cls, columns, panel, train_rows, season=None):
        """The units of the training part of a panel.

        Args:
            columns: `Columns`.
            panel: `Panel`.
            train_rows: list of int. Rows of each series that are trained on.
            season: int or `None`. Rows of a season; `None` for that of the index, or 1.
        """
        center, scale, features, seasonal = [], [], [], []
        season = season or panel.season() or 1
        for series, rows in zip(panel.series, train_rows, strict=True):
            mean, deviation = _statistics(series.values[:rows])
            center.append(mean.tolist())
            scale.append(np.where(deviation > SMALLEST * np.abs(mean), deviation, 1.0).tolist())
            features.append(_features(columns, series, rows))
            seasonal.append(seasonal_scale(series.values[:rows], season))
        mean, deviation = _statistics(np.concatenate(features))
        numbers = columns.numbers()
        mean = np.where(numbers, mean, 0.0)
        deviation = np.where(numbers & (deviation > SMALLEST * np.abs(mean)), deviation, 1.0)
        return cls(
            {
                "roles": panel.roles,
                "series": [_plain(series.name) for series in panel.series],
                "center": center,
                "scale": scale,
                "covariates": [mean.tolist(), deviation.tolist()],
                "season": season,
                "seasonal_scale": seasonal,
            }
        )

    def units(self, series, place=None, rows_told=None):
        """Center and scale of the variables of a series, two arrays.

        A series that was not trained on has units of its own, where its rows tell them.

        Args:
            series: `Series`.
            place: int or `None`. Which of those trained on it is. Defaults to what its name says.
            rows_told: int or `None`. How many of its rows may tell its units, since the others are
                forecast; those up to its first value do in any case. Defaults to all.
        """
        place = self.places.get(_plain(series.name)) if place is None else place
        if place is not None:
            return self.center[place], self.scale[place]
        values = series.values
        if rows_told is not None and len(values):
            told = np.maximum(rows_told, np.argmax(~np.isnan(values), axis=0) + 1)
            values = np.where(np.arange(len(values))[:, None] < told, values, np.nan)
        mean, deviation = _statistics(values)
        told = deviation > SMALLEST * np.abs(mean)
        pooled = np.median(self.scale, axis=0)
        return mean, np.where(told, deviation, pooled)

    def seasonal_scale(self, series):
        """The mean change from season to season of the variables, of a series trained on or not.

        Returns:
            List of float; 0 where nothing is known.
        """
        place = self.places.get(_plain(series.name))
        if place is not None:
            return self.facts["seasonal_scale"][place]
        return seasonal_scale(series.values, self.facts["season"])

    def covariates(self, columns, series, rows):
        """The covariates of a series in their units `(rows, features)`, NaN where missing."""
        values = _features(columns, series, rows)
        return (values - self.covariate_center) / self.covariate_scale

    def with_facts(self, **facts):
        """The same, with further facts."""
        return Fitted({**self.facts, **facts})


def _features(columns, series, rows):
    """Historic, known and static covariates side by side; historic ones end with the values."""
    historic = np.full((rows, len(columns.historic)), np.nan)
    have = min(rows, len(series.values))
    historic[:have] = series.historic[:have, : len(columns.historic)]
    static = np.tile(series.static, (rows, 1))
    parts = (("historic", historic), ("known", series.known[:rows]), ("static", static))
    return np.concatenate([columns.features(kind, part) for kind, part in parts], axis=1)


def _statistics(values):
    """Mean and deviation of each column, without the missing values."""
    there = ~np.isnan(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0.0).sum(axis=0) / count
    square = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count
    return mean, np.sqrt(square)


def _plain(name):
    return name.item() if isinstance(name, np.generic) else name
