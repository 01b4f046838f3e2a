"""Heart beats a second ahead: 10 records of MIT-BIH of 30 minutes, 2 leads, 90 Hz."""

import numpy as np

from keras_ssm.training import S4_FAMILY, ForecastRecipe, History, Splits
from keras_ssm.training.forecast_recipe import NAIVE, NEURAL, SOLVED

SAMPLES = 650_000  # of a record, at 360 Hz

DESCRIPTION = (
    "A forecaster of the electrocardiogram, one second ahead. When the next beat comes, and of "
    "which shape it is, the state knows from all beats before: a linear map of the last seconds "
    "does not."
)

EXAMPLE = """\
import numpy as np

leads = np.random.default_rng(0).normal(size=(900, 2))  # 10 s at 90 Hz
print(model.predict(leads).shape)"""

OWN_FILE = """\
import numpy as np

record = keras_ssm.signals.read_record("100")  # 100.hea and 100.dat; needs the package wfdb
leads = np.nan_to_num(record.samples[:, :2])  # two leads, ten seconds or more
leads = keras_ssm.signals.resample(leads, record.sampling_rate, 90)
print(model.predict(leads))  # the second that follows, in the units of the record"""

LIMITS = (
    "It was trained on the first 24 minutes of the records that it was tested on: it knows these "
    "ten patients. It is a demonstration of forecasting, and no medical device."
)

DATA_LICENCE = "MIT-BIH Arrhythmia Database, G. Moody and R. Mark (2001), PhysioNet, ODC-By 1.0"


class ECGAhead(ForecastRecipe):
    """Of each record the first 60 % are trained on, the last 20 % forecast."""

    name = "ecg_ahead"
    season = 72  # a beat at 75 a minute
    settings = {
        "lookback": 360,
        "horizon": 90,
        "num_layers": 2,
        "hidden_dim": 64,
        "state_dim": 64,
        "dropout": 0.0,
        "epochs": 10,
        "steps_per_epoch": 80,
        "batch_size": 16,
        "origins": 32,
        "context": 360,
        "learning_rate": 4e-3,
        "ssm_learning_rate": 2e-3,
        "weight_decay": 0.05,
        "margin": 0.01,
        "stride": 10,
    }
    systems = {
        **S4_FAMILY,
        "ridge": SOLVED,
        "dlinear": {**NEURAL, "epochs": 3, "batch_size": 512},
        "naive": NAIVE,
        "seasonal_naive": NAIVE,
    }

    def read(self, directory):
        path = directory / "mitbih_subset" / "mitbih_10rec_360hz.npz"
        if not path.is_file():
            raise ValueError(
                f"The data must lie in '{path}': 10 records of the MIT-BIH Arrhythmia Database. "
                "Received: no such file"
            )
        from scipy.signal import decimate

        with np.load(path) as file:
            signals = (file["signal"].astype("float64") - 1024.0) / 200.0  # mV
        if signals.shape[1:] != (SAMPLES, 2):
            raise ValueError(f"'{path}' must hold {SAMPLES} samples. Received: {signals.shape}")
        signals = decimate(signals, 4, ftype="fir", axis=1)  # 90 Hz
        steps = signals.shape[1]
        first, second = steps * 60 // 100, steps * 80 // 100
        mean = signals[:, :first].mean(axis=1, keepdims=True)
        signals = (signals - mean) / signals[:, :first].std(axis=1, keepdims=True)
        before_test = History([x[:second] for x in signals], second - first)
        return Splits(before_test, before_test, History(list(signals), steps - second))

    def facts(self, system, settings):
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "time-series-forecasting",
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": "10 records of MIT-BIH",
                "source": "PhysioNet, MIT-BIH Arrhythmia Database",
                "split": "60 / 20 / 20 % of each record in time, 90 Hz",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


RECIPE = ECGAhead()
