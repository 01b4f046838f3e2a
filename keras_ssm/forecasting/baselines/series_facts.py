from typing import NamedTuple

import numpy as np

from keras_ssm.forecasting.backtest import seasonal_scale


class SeriesFacts(NamedTuple):
    """Facts of a series, from its training part.

    Args:
        rows: int. Rows of that part.
        mean, scale: arrays `(V,)`. Mean and standard deviation, 1 where nothing changes.
        seasonal_scale: list `(V,)`. What `mase` divides by.
    """

    rows: int
    mean: np.ndarray
    scale: np.ndarray
    seasonal_scale: list

    @classmethod
    def of(cls, values, rows, season):
        """Returns the facts of the first rows of values `(time, V)`."""
        part = values[:rows]
        count = np.maximum(np.sum(~np.isnan(part), axis=0), 1)
        mean = np.nansum(part, axis=0) / count
        scale = np.sqrt(np.nansum((part - mean) ** 2, axis=0) / count)
        return cls(rows, mean, np.where(scale > 0, scale, 1.0), seasonal_scale(part, season))
