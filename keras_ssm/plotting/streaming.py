from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_streaming(images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> "Figure":
    """Plots images with the class probabilities as their pixels arrive.

    Args:
        images: array `(n, height, width)`.
        probabilities: array `(n, steps, classes)`. After each pixel.
        labels: integer array `(n,)`. True classes.

    Returns:
        `matplotlib.figure.Figure`.

    Example:
        ```python
        plot_streaming(np.zeros((1, 8, 8)), np.full((1, 64, 10), 0.1), np.array([3]))
        ```
    """
    count = len(images)
    ratios = {"width_ratios": [1, 3]}
    figure, axes = subplots(count, 2, figsize=(9, 1.7 * count), gridspec_kw=ratios)
    for row, (image, history, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        picture, curve = axes[row]
        picture.imshow(image, cmap="gray_r")
        picture.set(xticks=[], yticks=[], ylabel=f"a {label}")
        peaks = history.max(axis=0).argsort()[::-1]
        rivals = [index for index in peaks if index != label][:3]
        curve.plot(history[:, label], color="C0", linewidth=2, label=f"{label}")
        for color, rival in zip(("C1", "C2", "C3"), rivals, strict=False):  # fewer if binary
            curve.plot(history[:, rival], color=color, linewidth=1, label=f"{rival}")
        curve.set(xlim=(0, len(history) - 1), ylim=(-0.03, 1.03))
        curve.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        curve.spines[["top", "right"]].set_visible(False)
    axes[0, 1].set_title("Class probability as the pixels arrive")
    axes[-1, 1].set_xlabel("pixels read")
    figure.tight_layout()
    return figure
