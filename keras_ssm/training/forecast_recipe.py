from typing import NamedTuple

import keras

from keras_ssm.forecasting import LSTM, DLinear, Naive, Ridge, SeasonalNaive
from keras_ssm.models import SSMBackbone, SSMForecaster
from keras_ssm.models.forecasting.keep_best import KeepBest
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.training.clock import one_epoch
from keras_ssm.training.recipe import Recipe, Splits
from keras_ssm.training.run_backup import RunBackup
from keras_ssm.training.systems import cosine, make_mixer

# Settings that only what trains has, and only what has a state-space model inside.
OF_TRAINING = ("epochs", "batch_size", "learning_rate")
OF_BRANCH = (
    *("num_layers", "hidden_dim", "state_dim", "dropout", "dt_min", "dt_max", "context"),
    *("ssm_learning_rate", "weight_decay", "steps_per_epoch", "origins", "margin"),
)
# What the settings of baselines lack; they have one epoch, as all have.
NEURAL = dict.fromkeys(OF_BRANCH)
SOLVED = {**NEURAL, **dict.fromkeys(OF_TRAINING), "epochs": 1}
NAIVE = {**SOLVED, "lookback": None}
OF_MIXER = ("state_dim", "dt_min", "dt_max")


class History(NamedTuple):
    """Series whose last rows are to be forecast, each from what came before it.

    Fields:
        data: list of arrays `(time, variables)`.
        rows: int. Rows at the end of each.
    """

    data: list
    rows: int


class Linear:
    """A baseline of `keras_ssm.forecasting` in the place of a model of Keras.

    Args:
        baseline: `keras_ssm.forecasting.Baseline`.
    """

    def __init__(self, baseline):
        self.baseline = baseline

    def fit(self, history):
        self.baseline.fit(history.data, validation=history.rows)

    def evaluate(self, data, rows, step):
        return self.baseline.evaluate(data, rows=rows, step=step)

    def count_params(self):
        """Number of weights."""
        model = getattr(self.baseline, "model", None)
        weights = getattr(self.baseline, "weights", None)
        if model is not None:
            return model.count_params()
        return 0 if weights is None else weights.size


class ForecastRecipe(Recipe):
    """Base class of recipes that forecast: `SSMForecaster` beside the baselines in the box.

    A subclass reads `Splits` of `History`: what is trained on, with the rows by which weights are
    chosen at its end, twice, and the same with the rows of the test behind it. Systems are those
    of `keras_ssm.training.MIXERS` and, as baselines, `"ridge"`, `"dlinear"`, `"lstm"`, `"naive"`
    and `"seasonal_naive"`.

    Attributes:
        season: int. Rows of a season, for `"seasonal_naive"`.
    """

    season: int = 1
    baselines = ("ridge", "dlinear", "lstm", "naive", "seasonal_naive")

    def make_model(self, system: str, seed: int, settings: dict) -> SSMForecaster | Linear:
        """Returns the forecaster, or a baseline."""
        keras.utils.set_random_seed(seed)
        sizes = {"lookback": settings.get("lookback", 1), "horizon": settings["horizon"]}
        if system == "naive":
            return Linear(Naive(settings["horizon"]))
        if system == "seasonal_naive":
            return Linear(SeasonalNaive(self.season, settings["horizon"]))
        if system == "ridge":
            return Linear(Ridge(**sizes))
        if system in ("dlinear", "lstm"):
            trained = {name: settings[name] for name in OF_TRAINING}
            own = {"units": settings["units"]} if "units" in settings else {}
            kind = DLinear if system == "dlinear" else LSTM
            return Linear(kind(**sizes, **trained, **own, seed=seed))
        chosen = {name: settings[name] for name in OF_MIXER if name in settings}
        backbone = SSMBackbone(
            make_mixer(system, seed=seed, **chosen),
            num_layers=settings["num_layers"],
            hidden_dim=settings["hidden_dim"],
            dropout=settings["dropout"],
            prenorm=True,
            final_norm="layer",
        )
        model = SSMForecaster(backbone, **sizes)
        steps = settings["epochs"] * settings["steps_per_epoch"]
        model.compile(
            ssm_optimizer(
                cosine(settings["learning_rate"], steps),
                cosine(settings["ssm_learning_rate"], steps),
                weight_decay=settings["weight_decay"],
                global_clipnorm=1.0,
            )
        )
        return model

    def fit(
        self,
        model: SSMForecaster | Linear,
        splits: Splits,
        seed: int,
        settings: dict,
        callbacks: list[keras.callbacks.Callback],
        limit: int | None = None,
    ) -> None:
        """Trains the forecaster by its own `fit`; a baseline learns as it does."""
        history = splits.train
        if isinstance(model, Linear):
            with one_epoch(callbacks):
                model.fit(history)
            return
        steps = settings["steps_per_epoch"]
        (backup,) = [callback for callback in callbacks if isinstance(callback, RunBackup)]
        keep = KeepBest(settings["margin"], backup.path.parent / "best.weights.h5")
        backup.states["kept"] = keep
        model.fit(
            history.data,
            validation=history.rows,
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            steps_per_epoch=steps if limit is None else min(steps, limit),
            origins=settings["origins"],
            context=settings["context"],
            keep=keep,
            callbacks=callbacks,
            verbose=0,
        )

    def limited(self, splits: Splits, limit: int, settings: dict) -> Splits:
        """Returns the ends of the parts: a few windows to learn from, and a few to score."""
        rows = settings["horizon"] + limit
        kept = 2 * rows + settings.get("lookback", 1) + self.season
        return Splits(*(History([x[-kept:] for x in part.data], rows) for part in splits))

    def score(self, model: SSMForecaster | Linear, part: History, settings: dict):
        """Mean square and mean absolute error of the forecasts of a part."""
        found = model.evaluate(part.data, rows=part.rows, step=settings["stride"])
        return {"MSE": found["mse"], "MAE": found["mae"]}

    def count(self, metric: str, part: History) -> int | None:
        return None
