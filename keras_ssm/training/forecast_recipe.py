from typing import NamedTuple

import keras

from keras_ssm.forecasting import LSTM, DLinear, Naive, Ridge, SeasonalNaive
from keras_ssm.layers import SpaceTime
from keras_ssm.models import SSMBackbone, SSMForecaster
from keras_ssm.models.forecasting.keep_best import KeepBest
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.training.clock import one_epoch
from keras_ssm.training.recipe import Recipe, Splits
from keras_ssm.training.run_backup import RunBackup
from keras_ssm.training.systems import cosine, make_mixer

# Settings of every model that is trained, and of those with a state-space model inside.
TRAINING_SETTINGS = ("epochs", "batch_size", "learning_rate")
BRANCH_SETTINGS = (
    *("num_layers", "hidden_dim", "state_dim", "dropout", "dt_min", "dt_max", "context"),
    *("ssm_learning_rate", "weight_decay", "steps_per_epoch", "origins", "margin"),
)
# Settings that baselines lack are `None`. Solved baselines have one epoch, as a setting of all.
NEURAL = dict.fromkeys(BRANCH_SETTINGS)
SOLVED = {**NEURAL, **dict.fromkeys(TRAINING_SETTINGS), "epochs": 1}
NAIVE = {**SOLVED, "lookback": None}
MIXER_SETTINGS = ("state_dim", "dt_min", "dt_max", "variant")


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
    """Base class of recipes that forecast: `SSMForecaster` beside the baselines of the package.

    A subclass reads `Splits` of `History`. The training and the validation part are the same
    series, whose last rows choose the weights. The test part has its own rows behind these. Systems
    are those of `keras_ssm.training.MIXERS` and, as baselines, `"ridge"`, `"dlinear"`, `"lstm"`,
    `"naive"` and `"seasonal_naive"`.

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
            of_training = {name: settings[name] for name in TRAINING_SETTINGS}
            units = {"units": settings["units"]} if "units" in settings else {}
            baseline_class = DLinear if system == "dlinear" else LSTM
            return Linear(baseline_class(**sizes, **of_training, **units, seed=seed))
        of_mixer = {name: settings[name] for name in MIXER_SETTINGS if name in settings}
        backbone = SSMBackbone(
            make_mixer(system, seed=seed, **of_mixer),
            num_layers=settings["num_layers"],
            hidden_dim=settings["hidden_dim"],
            dropout=settings["dropout"],
            prenorm=True,
            final_norm="layer",
        )
        if settings.get("head") == "closed_loop":
            loop = {"skip": False, "closed_loop": True, "seed": seed + settings["num_layers"]}
            decoder = SpaceTime(settings["state_dim"], **loop)
            sizes |= {"head": "closed_loop", "decoder": decoder}
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
        """Trains the forecaster by its own `fit`, and a baseline by that of the baseline."""
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
        length = 2 * rows + settings.get("lookback", 1) + self.season
        return Splits(*(History([x[-length:] for x in part.data], rows) for part in splits))

    def score(self, model: SSMForecaster | Linear, part: History, settings: dict):
        """Mean square and mean absolute error of the forecasts of a part."""
        scores = model.evaluate(part.data, rows=part.rows, step=settings["stride"])
        return {"MSE": scores["mse"], "MAE": scores["mae"]}

    def count(self, metric: str, part: History) -> int | None:
        return None
