import csv
import time
import warnings
from pathlib import Path

import keras

from keras_ssm.atomic_file import writing_file
from keras_ssm.plotting import plot_learning_curves

BETWEEN_PICTURES = 60.0  # seconds, so that drawing costs a long run next to nothing


class LearningCurve(keras.callbacks.Callback):
    """Writes the scores of each epoch into a CSV file, whole at every moment, and draws them.

    Each epoch has one row, also where a run ended between its row and its backup. Numbers
    are written with all their digits.

    Args:
        path: `Path` of the CSV file; the picture has its name and ends in `.png`.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.drawn = time.monotonic()
        self.rows = []
        self.draws = True

    def on_train_begin(self, logs=None):
        self.rows = read_curve(self.path) if self.path.is_file() else []

    def on_epoch_begin(self, epoch, logs=None):
        self.rows = [row for row in self.rows if int(row["epoch"]) < epoch]

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch, **(logs or {})})
        with writing_file(self.path) as scratch, open(scratch, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[-1], lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        if time.monotonic() - self.drawn > BETWEEN_PICTURES:
            self.draw()

    def on_train_end(self, logs=None):
        self.draw()

    def draw(self):
        """Draws the picture; without matplotlib says so once."""
        if not self.draws or not self.rows:
            return
        try:
            figure = plot_learning_curves(self.path)
        except ImportError as error:
            self.draws = False
            warnings.warn(f"There is no picture of '{self.path}': {error}", stacklevel=2)
            return
        with writing_file(self.path.with_suffix(".png")) as scratch:
            figure.savefig(scratch, dpi=120)
        self.drawn = time.monotonic()


def read_curve(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a learning curve, one an epoch."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
