from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reliability(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float | None = None
) -> "Figure":
    """Plots how often answers are right against the probability that they were given.

    Args:
        confidence: array `(bins,)`. Mean probability of the answers of each bin.
        accuracy: array `(bins,)`. Share of them that was right.
        counts: integer array `(bins,)`. How many there are; bins of none are left out.
        error: float or `None`. Expected calibration error, for the title. Defaults to `None`.

    Returns:
        `matplotlib.figure.Figure`. The area of a point tells how many answers it stands for.

    Raises:
        ValueError: for arrays of unlike lengths, or no answer at all.

    Example:
        ```python
        plot_reliability(np.array([0.55, 0.95]), np.array([0.5, 0.9]), np.array([10, 90]))
        ```
    """
    confidence, accuracy, counts = map(np.asarray, (confidence, accuracy, counts))
    if not confidence.shape == accuracy.shape == counts.shape or counts.ndim != 1:
        raise ValueError(
            "`confidence`, `accuracy` and `counts` must be of one length. "
            f"Received: shapes {confidence.shape}, {accuracy.shape}, {counts.shape}"
        )
    filled = counts > 0
    if not filled.any():
        raise ValueError("`counts` must count an answer. Received: none")
    figure, axes = subplots(1, 1, figsize=(4.2, 4.2))
    axis = axes[0, 0]
    axis.plot([0, 1], [0, 1], "--", color="0.6", linewidth=0.9)
    sizes = 20 + 300 * counts[filled] / counts.sum()
    axis.scatter(confidence[filled], accuracy[filled], sizes, alpha=0.8, edgecolors="white")
    axis.set(xlim=(0, 1.03), ylim=(-0.03, 1.06), xlabel="probability of the answer")
    axis.set_ylabel("share that is right")
    if error is not None:
        axis.set_title(f"expected calibration error {error:.2%}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
