from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_step_errors(
    errors: Mapping[str, np.ndarray], xlabel: str = "steps ahead", ylabel: str = "square error"
) -> "Figure":
    """Plots an error over the steps to which it belongs, a line for each model.

    Args:
        errors: dict from the name of a model to its errors, an array `(steps,)`: of step 1, 2, ...
        xlabel: str. Defaults to `"steps ahead"`.
        ylabel: str. Defaults to `"square error"`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no model, or errors that are no array of one axis.

    Example:
        ```python
        plot_step_errors({"model": np.arange(5.0), "last value": 2 * np.arange(5.0)})
        ```
    """
    if not errors or any(np.ndim(values) != 1 for values in errors.values()):
        raise ValueError(
            "`errors` must have an array of one axis for at least one name. "
            f"Received: {[(name, np.shape(values)) for name, values in errors.items()]}"
        )
    figure, axes = subplots(1, 1, figsize=(6.4, 3.4))
    axis = axes[0, 0]
    for number, (name, values) in enumerate(errors.items()):
        style = {"linewidth": 1.8} if number == 0 else {"linewidth": 1.1}
        axis.plot(np.arange(1, len(values) + 1), values, label=name, **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
