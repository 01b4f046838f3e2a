from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.plotting.figures import layers_and_labels, subplots
from keras_ssm.plotting.impulse import gains, impulse_response

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_kernels(
    layers: keras.layers.Layer | list[keras.layers.Layer],
    length: int = 64,
    features: int = 6,
    labels: str | list[str] | None = None,
) -> "Figure":
    """Plots convolution kernels: how long and how each feature remembers.

    A column for each layer, a row for each of some outputs. In `S5`, where every input reaches
    every output, the kernel from the input of the same number is blue and the others are grey.
    Lags below 0 are those of a bidirectional layer, which reads ahead.

    Args:
        layers: built layer of the family, backbone or task model, or a list of them.
        length: int. Steps. Defaults to `64`.
        features: int. How many outputs, spread over each layer. Defaults to `6`.
        labels: list of str or `None`. Names of the layers. Defaults to `None`, `"layer 0"` and so
            on.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, one that is not built, another number of labels, or a `length`
            or `features` below 1.

    Example:
        ```python
        plot_kernels(model.backbone.blocks[0].mixer).savefig("kernels.png")
        plot_kernels(model, length=32, features=3).savefig("all_kernels.png")
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 3.
    """
    check_positive(length=length, features=features)
    layers, labels = layers_and_labels(layers, labels)
    responses = [impulse_response(layer, length) for layer in layers]
    rows = [_spread(len(kernels), features) for _, kernels in responses]
    count = max(map(len, rows))
    width = 7 if len(layers) == 1 else 1 + 3 * len(layers)
    size = (width, 1.1 * count + 0.8)
    figure, axes = subplots(count, len(layers), sharex="col", figsize=size)
    for column, (layer, (lags, kernels), chosen) in enumerate(
        zip(layers, responses, rows, strict=True)
    ):
        for row, axis in enumerate(axes[:, column]):
            axis.set_visible(row < len(chosen))
        for axis, index in zip(axes[:, column], chosen, strict=False):
            axis.axhline(0, color="0.8", linewidth=0.8)
            diagonal = index if kernels.shape[1] > 1 else 0
            off_diagonal = np.delete(kernels[index], diagonal, axis=0)
            if len(off_diagonal):
                axis.plot(lags, off_diagonal.T, color="0.75", linewidth=0.5)
            axis.plot(lags, kernels[index, diagonal], color="C0")
            axis.set_ylabel(f"{index % layer.features}", rotation=0, labelpad=12)
            axis.spines[["top", "right"]].set_visible(False)
        if len(layers) > 1:
            axes[0, column].set_title(labels[column])
        last = axes[len(chosen) - 1, column]
        last.set_xlabel("lag (samples)")
        last.tick_params(labelbottom=True)
    if len(layers) == 1:
        axes[0, 0].set_title("Convolution kernels by feature")
    figure.tight_layout()
    return figure


def plot_frequency_response(
    layers: keras.layers.Layer | list[keras.layers.Layer],
    labels: str | list[str] | None = None,
    length: int = 16384,
    features: int = 0,
) -> "Figure":
    """Plots how strongly layers pass each frequency: the magnitude of their kernels' spectrum.

    A thick line is the root mean square over all outputs of a layer. Every input of `S5` reaches
    every output; the gain of an output is then the root of the sum of squares over the inputs.
    The skip D, which passes all frequencies alike, is left out. Of a bidirectional layer both
    directions count. Of a softmax `DSS` the kernel for sequences of `length` steps is shown.

    Args:
        layers: built layer of the family, backbone or task model, or a list of them.
        labels: list of str or `None`. Names of the layers in the legend. Defaults to `None`,
            `"layer 0"` and so on.
        length: int. Steps of the kernels; longer than their memory, or the curves have ripples.
            Defaults to `16384`.
        features: int. How many single outputs, spread over each layer, are drawn as thin lines.
            Defaults to `0`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, one that is not built, another number of labels, or a `length`
            below 4.

    Example:
        ```python
        plot_frequency_response(model, length=2048)
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), theorem 2, for the spikes of S4D-LegS.
    """
    check_positive(length=length)
    if length < 4:
        raise ValueError(f"`length` must be at least 4 steps. Received: length={length}")
    layers, labels = layers_and_labels(layers, labels)
    figure, axes = subplots(1, 1, figsize=(8, 4.2))
    axis = axes[0, 0]
    frequencies = np.fft.rfftfreq(length)[1:]
    for number, (layer, label) in enumerate(zip(layers, labels, strict=True)):
        magnitude = gains(layer, length)[:, 1:]
        for index in _spread(len(magnitude), features):
            axis.plot(frequencies, magnitude[index], color=f"C{number}", linewidth=0.5, alpha=0.5)
        mean = np.sqrt(np.mean(magnitude**2, axis=0))
        axis.plot(frequencies, mean, color=f"C{number}", linewidth=1.4, label=label)
    axis.set(xscale="log", yscale="log", xlim=(frequencies[0], frequencies[-1]))
    axis.set(xlabel="frequency (cycles per sample)", ylabel="gain")
    axis.set_title("Frequency response")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _spread(size, count):
    """At most `count` indices below `size`, spread evenly."""
    return np.unique(np.linspace(0, size - 1, count).astype(int))
