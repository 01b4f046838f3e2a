import numpy as np

from keras_ssm.forecasting.baselines.baseline import Baseline
from keras_ssm.forecasting.baselines.series_facts import SeriesFacts


class Naive(Baseline):
    """Repeats the last value that is known.

    Args:
        horizon: int. Rows of a forecast. Defaults to `24`.

    Example:
        ```python
        y = Naive(horizon=2).fit(np.array([1.0, 4.0, 3.0, np.nan])).predict()  # 3, 3
        ```
    """

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: SeriesFacts) -> np.ndarray:
        return np.repeat(values[origins - 1][:, None], self.horizon, axis=1)
