import csv
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_ssm.plotting.figures import subplots
from keras_ssm.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # pictures beside each other
MISSING = ("", "NA")  # values of an epoch without validation


def plot_learning_curves(
    history: PathLike | keras.callbacks.History | dict[str, list[float]],
) -> "Figure":
    """Plots losses and scores over the epochs, training and validation in one picture.

    Args:
        history: what `fit` returned; its `history`, a dict of lists; or a CSV file with a column
            `epoch`, as `keras.callbacks.CSVLogger` and `keras-ssm train` write it.

    Returns:
        `matplotlib.figure.Figure`, with a picture for each metric. The best epoch of a metric of
        the validation part has a mark: the lowest loss, the highest accuracy.

    Raises:
        ValueError: if there is no epoch or no metric, or lists of unlike lengths.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        x, y = np.zeros((8, 64), "float32"), np.zeros(8, int)
        history = model.fit(x, y, epochs=3, verbose=0)
        keras_ssm.plotting.plot_learning_curves(history).savefig("curve.png")
        ```
    """
    curves = _read(history)
    names = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    if not names:
        raise ValueError(
            "`history` must hold at least one epoch of one metric. Received: none of any"
        )
    across = min(COLUMNS, len(names))
    down = -(-len(names) // across)
    figure, axes = subplots(down, across, figsize=(4.5 * across, 3.2 * down), sharex=True)
    for name, axis in zip(names, axes.flat, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in curves:
                epochs, values = curves[key]
                axis.plot(epochs, values, label=label, marker="." * (len(values) == 1))
        epochs, values = curves.get(f"val_{name}", ((), ()))
        if np.isfinite(values).any():
            best = np.nanargmax(values) if _rises(name) else np.nanargmin(values)
            axis.plot(epochs[best], values[best], "o", color="C1", fillstyle="none")
        axis.set(title=name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.tight_layout()
    return figure


def _read(history):
    """The epochs of each metric that has values, and these."""
    if isinstance(history, (keras.callbacks.History, dict)):
        curves = history if isinstance(history, dict) else history.history
        count = max(map(len, curves.values()), default=0)
        epochs = range(count) if isinstance(history, dict) else history.epoch
        for name, values in curves.items():
            if len(values) != len(epochs):
                raise ValueError(
                    "`history` must have a value of each metric for each epoch; the file of a "
                    "`keras.callbacks.CSVLogger` says which epochs a `validation_freq` left out. "
                    f"Received: {len(values)} values of {name!r} in {len(epochs)} epochs"
                )
        columns = {name: list(zip(epochs, values, strict=True)) for name, values in curves.items()}
    else:
        with open(Path(history).expanduser(), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and "epoch" not in rows[0]:
            raise ValueError(
                "`history` must be a CSV file with a column `epoch`. "
                f"Received: '{history}' with {', '.join(rows[0])}"
            )
        names = [name for name in (rows[0] if rows else ()) if name != "epoch"]
        columns = {
            name: [(int(row["epoch"]), row[name]) for row in rows if row[name] not in MISSING]
            for name in names
        }
    named_curves = {name: np.array(pairs, "float64").T for name, pairs in columns.items() if pairs}
    return {name: (epochs + 1, values) for name, (epochs, values) in named_curves.items()}


def _rises(name):
    return any(word in name for word in ("acc", "auc", "f1", "precision", "recall", "sensitivity"))
