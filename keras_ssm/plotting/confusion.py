from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.checks import check_choice
from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMALIZATIONS = (None, "true", "predicted", "all")


def plot_confusion_matrix(
    y_true: object,
    y_predicted: object,
    class_names: Sequence[str] | None = None,
    normalize: str | None = None,
    mask: object = None,
) -> "Figure":
    """Plots how often each class was taken for each other.

    Args:
        y_true: array of classes, as numbers or names, `(rows,)` or `(rows, length)`.
        y_predicted: array of the same shape: classes, as `predict_classes` returns them.
        class_names: list of str or `None`. Names of the classes 0, 1, ..., and their order.
            Defaults to the classes that occur, sorted.
        normalize: str or `None`. `"true"`: shares of each true class, whose diagonal is the
            sensitivity; `"predicted"`: of each predicted one, whose diagonal is the precision;
            `"all"`; or `None`: counts. Defaults to `None`.
        mask: boolean array of the shape of `y_true`, True where it counts, or `None`: all. Padded
            steps, as `predict_classes` marks them by `""` or -1, never count.

    Returns:
        `matplotlib.figure.Figure`, with true classes from top to bottom. The title is the accuracy
        and the number of examples.

    Raises:
        ValueError: for arrays of other shapes, classes without a name, or nothing that counts.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        y, predicted = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
        figure = keras_ssm.plotting.plot_confusion_matrix(y, predicted, ["rest", "walk", "run"])
        figure.savefig("confusion.png")
        ```
    """
    check_choice("normalize", normalize, NORMALIZATIONS)
    true, predicted = _classes("y_true", y_true), _classes("y_predicted", y_predicted)
    if true.shape != predicted.shape:
        raise ValueError(
            f"`y_predicted` must have the shape of `y_true`, {true.shape}. "
            f"Received: y_predicted.shape={predicted.shape}"
        )
    counts = np.ones(true.shape, bool) if mask is None else np.asarray(mask, bool)
    if counts.shape != true.shape:
        raise ValueError(
            f"`mask` must have the shape of `y_true`, {true.shape}. "
            f"Received: mask.shape={counts.shape}"
        )
    counts = counts & (predicted != ("" if predicted.dtype.kind == "U" else -1))
    true, predicted = true[counts], predicted[counts]
    if not true.size:
        raise ValueError(f"`y_true` must hold a class that counts. Received: {counts.size} entries")
    names, indices = _numbered(true, predicted, class_names)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, indices, 1)
    return _drawn(table, names, normalize)


def _classes(name, values):
    values = np.asarray(values)
    values = values.astype(str) if values.dtype.kind == "O" else values
    are_classes = values.dtype.kind in "iuUb" or (
        values.dtype.kind == "f" and (values % 1 == 0).all()
    )
    if not are_classes or not values.ndim:
        raise ValueError(
            f"`{name}` must be an array of classes, numbers or names; probabilities and logits go "
            f"through `argmax(axis=-1)`. Received: {name}.dtype={values.dtype}, "
            f"shape {values.shape}"
        )
    return values if values.dtype.kind == "U" else values.astype("int64")


def _numbered(true, predicted, class_names):
    """Names of the classes, and the place of each true and predicted one among them."""
    if class_names is None:
        kinds = {values.dtype.kind for values in (true, predicted)}
        if len(kinds) > 1:
            raise ValueError(
                "`class_names` must name the classes where one array holds numbers and one names. "
                "Received: class_names=None"
            )
        classes = np.unique(np.concatenate([true, predicted]))
        return list(map(str, classes)), tuple(
            np.searchsorted(classes, v) for v in (true, predicted)
        )
    names = list(map(str, class_names))
    number_of = {name: number for number, name in enumerate(names)}
    indices = []
    for values in (true, predicted):
        if values.dtype.kind == "U":
            values = np.array([number_of.get(name, -1) for name in values.tolist()])
        if values.min() < 0 or values.max() >= len(names):
            raise ValueError(
                "`class_names` must name each class that occurs. "
                f"Received: {len(names)} names, and a class without one"
            )
        indices.append(values)
    return names, tuple(indices)


def _drawn(table, names, normalize):
    count, right = int(table.sum()), np.trace(table)
    sums = {
        None: 1.0,
        "true": table.sum(axis=1, keepdims=True),
        "predicted": table.sum(axis=0, keepdims=True),
        "all": table.sum(),
    }[normalize]
    cells = table / np.where(np.asarray(sums) > 0, sums, 1.0)
    size = max(3.0, 0.55 * len(names) + 1.8)
    figure, axes = subplots(1, 1, figsize=(size, size))
    axis = axes[0, 0]
    largest = 1.0 if normalize in ("true", "predicted") else cells.max()
    axis.imshow(cells, cmap="Blues", vmin=0, vmax=largest)
    if len(names) <= 30:  # nobody could read more numbers
        for row, column in np.argwhere(table > 0):
            value = cells[row, column]
            text = f"{int(value)}" if normalize is None else f"{value:.2f}"
            color = "white" if value > 0.6 * largest else "black"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    turned = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}
    axis.set_xticks(range(len(names)), names, **turned)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_title(f"accuracy {right / count:.1%} of {count:,}")
    figure.tight_layout()
    return figure
