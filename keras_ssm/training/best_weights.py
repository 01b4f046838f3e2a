import math
from pathlib import Path

from keras_ssm.atomic_file import writing_file
from keras_ssm.checks import check_choice
from keras_ssm.training.run_backup import RunState

LAST = "last"


class BestWeights(RunState):
    """Keeps the weights of the epoch with the best score, and ends a training without progress.

    It reads `val_<metric>` after every epoch. When training ends, the model has these weights.

    Args:
        path: `Path` of the weights file, ending in `.weights.h5`.
        metric: str. Metric of the validation part, or `"last"`: the weights of the last epoch.
        rising: bool. Whether more is better.
        patience: int. After so many epochs without a better score training ends; `0` for never.
    """

    def __init__(self, path: Path, metric: str, rising: bool, patience: int = 0):
        super().__init__()
        self.path = path
        self.metric = metric
        self.sign = 1.0 if rising else -1.0
        self.patience = patience
        self.best = {"epoch": None, "value": None, "last": -1}

    @property
    def finished(self):
        if not self.patience or self.best["epoch"] is None:
            return False
        return self.best["last"] - self.best["epoch"] >= self.patience

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if self.metric != LAST and any(
            getattr(part, "use_ema", False)
            for part in (optimizer, *getattr(optimizer, "optimizers", ()))
        ):
            raise ValueError(
                "An optimizer with `use_ema` gives its averages to the model after the last epoch "
                "alone: they go with select='last'. "
                f"Received: select={self.metric!r}"
            )

    def on_epoch_end(self, epoch, logs=None):
        if self.metric == LAST:
            return
        metrics = [name.removeprefix("val_") for name in logs if name.startswith("val_")]
        check_choice("select", self.metric, (LAST, *metrics))
        value = logs[f"val_{self.metric}"]
        best_value = self.best["value"]
        self.best["last"] = epoch
        # The first epoch is kept, even if its score is NaN.
        if (
            best_value is None
            or self.sign * value > self.sign * best_value
            or math.isnan(best_value)
        ):
            with writing_file(self.path) as scratch:
                self.model.save_weights(scratch)
            self.best |= {"epoch": epoch, "value": value}
        if self.finished:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.metric != LAST and self.best["epoch"] is not None:
            self.model.load_weights(self.path)

    def get_state(self):
        return dict(self.best)

    def set_state(self, state):
        self.best = dict(state)
