import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.forecasting.baselines.baseline import Baseline
from keras_ssm.forecasting.baselines.series_facts import SeriesFacts
from keras_ssm.forecasting.filling import filled_by_season
from keras_ssm.forecasting.panel import Panel


class SeasonalNaive(Baseline):
    """Repeats the last season: yesterday's hours, last year's months.

    Where a value of that season is missing, the one a season before it stands for it.

    Args:
        season: int or `None`. Rows of a season. Defaults to `None`: `Panel.season()`, that of the
            data's frequency.
        horizon: int. Rows of a forecast. Defaults to `24`.

    Raises:
        ValueError: for sizes below 1; by `fit`, for data whose index has no season.

    Example:
        ```python
        y = SeasonalNaive(season=3, horizon=4).fit(np.arange(9.0)).predict()  # 6, 7, 8, 6
        ```
    """

    def __init__(self, season: int | None = None, horizon: int = 24):
        super().__init__(horizon)
        if season is not None:
            (season,) = check_positive(season=season)
        self.season = season

    @property
    def reads(self):
        return self.cycle

    def prepare(self, panel: Panel) -> None:
        self.cycle = self.season or panel.season()
        if self.cycle is None:
            raise ValueError(
                "`season` must be given for data whose index has no season of its own. "
                f"Received: season=None, freq={panel.freq!r}"
            )

    def fill(self, values: np.ndarray) -> np.ndarray:
        return filled_by_season(values, self.cycle)

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: SeriesFacts) -> np.ndarray:
        steps = np.arange(self.horizon) % self.reads
        return values[origins[:, None] - self.reads + steps]
