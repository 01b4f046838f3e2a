import numpy as np

from keras_ssm.checks import check_number, check_positive
from keras_ssm.forecasting.baselines.baseline import Baseline
from keras_ssm.forecasting.baselines.series_facts import SeriesFacts
from keras_ssm.forecasting.ridge_weights import RidgeSums, best_ridge


class Ridge(Baseline):
    """A linear map of the last rows, less the very last, to the horizon: solved, not trained.

    y = last + (x - last) W, with one W for all variables and series, each in units of its
    deviation. W is the ridge regression on all windows of the training part, in float64. On ETTh1
    it equals the published linear and patch models.

    Args:
        lookback: int. Rows that a forecast reads. Defaults to `96`.
        horizon: int. Rows of a forecast. Defaults to `24`.
        alpha: float or `"auto"`. The penalty. Defaults to `"auto"`: the one with the smallest
            square error on the validation part.

    Raises:
        ValueError: for sizes below 1 or a negative penalty.

    Example:
        ```python
        x = np.sin(np.arange(200) / 5)
        y = Ridge(lookback=20, horizon=5).fit(x).predict()
        assert np.abs(y - np.sin(np.arange(200, 205) / 5)).max() < 1e-3
        ```

    Reference:
        [NLinear](https://arxiv.org/abs/2205.13504), whose model this is, solved exactly.
    """

    def __init__(self, lookback: int = 96, horizon: int = 24, alpha: float | str = "auto"):
        super().__init__(horizon)
        (self.lookback,) = check_positive(lookback=lookback)
        if alpha != "auto":
            check_number("alpha", alpha, low=0)
        self.alpha = alpha

    learns = True

    @property
    def reads(self):
        return self.lookback

    def learn(self, verbose: int | str) -> None:
        train = self._differences("train")
        if self.alpha == "auto":
            self.weights, self.chosen_alpha = best_ridge(train, self._differences("validation"))
        else:
            sums = RidgeSums()
            for x, y in train:
                sums.add(x, y)
            self.weights, self.chosen_alpha = sums.solve(self.alpha), self.alpha

    def _differences(self, part):
        """Pairs less the last value of each window."""
        for x, y in self.pairs(part):
            last = x[:, -1:]
            yield x - last, y - last

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: SeriesFacts) -> np.ndarray:
        views = np.lib.stride_tricks.sliding_window_view(values, self.lookback, axis=0)
        x = views[origins - self.lookback]  # (n, V, lookback)
        last = x[..., -1:]
        return np.moveaxis(last + (x - last) @ self.weights, -1, 1)
