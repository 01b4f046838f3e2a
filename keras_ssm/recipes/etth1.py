"""Electricity transformers, hour by hour (ETTh1): 7 variables, 96 to 720 hours ahead."""

import gzip

import numpy as np

from keras_ssm.training import S4_FAMILY, ForecastRecipe, History, Splits
from keras_ssm.training.forecast_recipe import NAIVE, NEURAL, SOLVED

TRAIN, VALIDATION, TEST = 8640, 2880, 2880  # rows: 12, 4 and 4 months of 30 days

DESCRIPTION = (
    "A forecaster of the load and oil temperature of an electricity transformer. It shows "
    "forecasts with intervals, updates by new rows, and a linear shortcut in closed form, which on "
    "these data is as good as anything published."
)

EXAMPLE = """\
import numpy as np

hours = np.random.default_rng(0).normal(size=(500, 7))
print(model.predict(hours).shape)"""

OWN_FILE = """\
import numpy as np

# A header, then a line for each hour: a date and seven numbers, of two weeks or more.
hours = np.genfromtxt("hours.csv", delimiter=",", skip_header=1)[:, 1:]
mean, scale = hours.mean(axis=0), hours.std(axis=0)
forecast = mean + scale * model.predict((hours - mean) / scale)
np.savetxt("forecast.csv", forecast, delimiter=",")"""

LIMITS = (
    "It was trained on one transformer, in units of its first year. On these data the state adds "
    "little to the linear shortcut. The test windows overlap, so that their errors are not "
    "independent."
)

DATA_LICENCE = "ETT-small, H. Zhou et al. (2021), zhouhaoyi/ETDataset, CC BY-ND 4.0"


class ETTh1(ForecastRecipe):
    """Every window of the test part, standardised by the first 8,640 rows."""

    name = "etth1"
    season = 24
    settings = {
        "lookback": 336,
        "horizon": 96,
        "num_layers": 2,
        "hidden_dim": 32,
        "state_dim": 32,
        "dropout": 0.2,
        "epochs": 5,
        "steps_per_epoch": 25,
        "batch_size": 32,
        "origins": 16,
        "context": 336,
        "learning_rate": 1e-3,
        "ssm_learning_rate": 5e-4,
        "weight_decay": 0.05,
        "margin": 0.01,
        "stride": 1,
    }
    systems = {
        **S4_FAMILY,
        "lru": {},
        "spacetime": {"head": "closed_loop"},
        "ridge": SOLVED,
        "dlinear": {**NEURAL, "epochs": 10, "batch_size": 64},
        "lstm": {**NEURAL, "epochs": 10, "batch_size": 64, "units": 64},
        "naive": NAIVE,
        "seasonal_naive": NAIVE,
    }

    def read(self, directory):
        path = directory / "ett" / "ETTh1.csv.gz"
        if not path.is_file():
            raise ValueError(
                f"The data must lie in '{path}': ETTh1.csv of zhouhaoyi/ETDataset, compressed by "
                "gzip. Received: no such file"
            )
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(1, 8))
        rows = (rows - rows[:TRAIN].mean(axis=0)) / rows[:TRAIN].std(axis=0)
        before_test = History([rows[: TRAIN + VALIDATION]], VALIDATION)
        return Splits(before_test, before_test, History([rows[: TRAIN + VALIDATION + TEST]], TEST))

    def preset_name(self, system, settings):
        horizon = settings["horizon"]
        return f"{system}_{self.name}" + (f"_{horizon}" if horizon != 96 else "")

    def facts(self, system, settings):
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "time-series-forecasting",
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": f"ETTh1, {settings['horizon']} hours ahead",
                "source": "zhouhaoyi/ETDataset",
                "split": "12 / 4 / 4 months of 30 days; all windows of the test part, none dropped",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


RECIPE = ETTh1()
