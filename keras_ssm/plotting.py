"""Pictures of systems and predictions, as matplotlib figures."""

import numpy as np
from keras import ops


def plot_kernels(layer, length=64, features=6):
    """Plots convolution kernels of a layer: how long and how each feature remembers.

    Args:
        layer: a built state-space layer with `kernel`.
        length: int. Steps. Defaults to `64`.
        features: int. How many features, spread over the layer. Defaults to `6`.

    Returns:
        `matplotlib.figure.Figure`.

    Example:
        ```python
        plot_kernels(model.backbone.blocks[0].mixer).savefig("kernels.png")
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 3.
    """
    kernels = ops.convert_to_numpy(layer.kernel(length))
    kernels = kernels.reshape(-1, length)
    chosen = np.unique(np.linspace(0, len(kernels) - 1, features).astype(int))
    figure, axes = _subplots(len(chosen), 1, sharex=True, figsize=(7, 1.1 * len(chosen) + 0.8))
    for axis, index in zip(axes.ravel(), chosen, strict=True):
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.plot(kernels[index], color="C0")
        axis.set_ylabel(f"{index % layer.features}", rotation=0, labelpad=12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_title("Convolution kernels by feature")
    axes[-1, 0].set_xlabel("lag (samples)")
    figure.tight_layout()
    return figure


def plot_eigenvalues(layers):
    """Plots the eigenvalues of layers: continuous on the left, per sample on the right.

    Args:
        layers: list of built diagonal layers with `log_A_real`, `A_imag` and `discretize`.

    Returns:
        `matplotlib.figure.Figure`.

    Example:
        ```python
        plot_eigenvalues([block.mixer for block in model.backbone.blocks])
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    figure, axes = _subplots(1, 2, figsize=(10, 4.6))
    left, right = axes.ravel()
    for number, layer in enumerate(layers):
        real = -np.exp(ops.convert_to_numpy(layer.log_A_real))
        imag = ops.convert_to_numpy(layer.A_imag)
        style = {"s": 4, "alpha": 0.5, "color": f"C{number}", "linewidths": 0}
        left.scatter(real, imag, label=f"layer {number}", **style)
        left.scatter(real, -imag, **style)
        dA = ops.convert_to_numpy(layer.discretize().dA)
        modes = dA.shape[-1] // 2
        right.scatter(dA[:, :modes], dA[:, modes:], **style)
        right.scatter(dA[:, :modes], -dA[:, modes:], **style)
    left.set(yscale="symlog", xlabel="Re A (per unit of time)", ylabel="Im A (per unit of time)")
    left.set_title("Continuous eigenvalues, with their conjugates")
    left.legend(markerscale=3, frameon=False, loc="center right")
    angle = np.linspace(0, 2 * np.pi, 400)
    right.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=0.8)
    right.set(aspect="equal", xlabel="Re dA", ylabel="Im dA")
    right.set_title("Discrete eigenvalues and the unit circle")
    figure.tight_layout()
    return figure


def plot_streaming(images, probabilities, labels):
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
    figure, axes = _subplots(count, 2, figsize=(9, 1.7 * count), gridspec_kw=ratios)
    for row, (image, history, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        picture, curve = axes[row]
        picture.imshow(image, cmap="gray_r")
        picture.set(xticks=[], yticks=[], ylabel=f"a {label}")
        peaks = history.max(axis=0).argsort()[::-1]
        shown = [c for c in peaks if c != label][:3]
        curve.plot(history[:, label], color="C0", linewidth=2, label=f"{label}")
        for color, other in zip(("C1", "C2", "C3"), shown, strict=False):  # fewer if binary
            curve.plot(history[:, other], color=color, linewidth=1, label=f"{other}")
        curve.set(xlim=(0, len(history) - 1), ylim=(-0.03, 1.03))
        curve.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        curve.spines[["top", "right"]].set_visible(False)
    axes[0, 1].set_title("Class probability as the pixels arrive")
    axes[-1, 1].set_xlabel("pixels read")
    figure.tight_layout()
    return figure


def _subplots(rows, columns, **kwargs):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**{key: kwargs.pop(key) for key in ("figsize",) if key in kwargs})
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)
