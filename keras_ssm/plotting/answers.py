from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # the most curves; classes with the highest peaks are drawn
LONGEST = 1000  # points of a curve


def plot_answers(
    samples: Sequence,
    probabilities: Sequence,
    titles: Sequence[str],
    class_names: Sequence[str],
    shape: tuple[int, int] | None = None,
    sampling_rate: float | None = None,
    truths: Sequence | None = None,
    cmap: str = "gray_r",
) -> "Figure":
    """Plots sequences, and beside each the answers of a classifier while it reads.

    Args:
        samples: list of arrays `(length,)` or `(length, features)`.
        probabilities: list of arrays `(steps, classes)`: after each step; fewer than the samples
            where a step takes several of them.
        titles: list of str. What stands above each sample.
        class_names: list of str. Names of the classes.
        shape: tuple of height and width, where the samples are images read row after row, or
            `None`. Defaults to `None`.
        sampling_rate: float or `None`. Samples in a second, for an axis of time in seconds.
            Defaults to `None`: samples.
        truths: list of integer arrays `(steps,)` or `None`. The class of each step, drawn as bars
            below the curves. Defaults to `None`.
        cmap: str. Colours of images, a colour map of Matplotlib. Defaults to `"gray_r"`: ink on
            paper. `"gray"` is for photographs, whose large numbers are light.

    Returns:
        `matplotlib.figure.Figure`, a row for each sample.

    Raises:
        ValueError: for lists of unlike lengths, or another number of names.

    Example:
        ```python
        wave = np.sin(np.linspace(0, 20, 400))
        rising = np.stack([wave, -wave], axis=1) / 2 + 0.5
        plot_answers([wave], [rising], ["a wave"], ["up", "down"], sampling_rate=100)
        ```
    """
    count = len(samples)
    if not count or not count == len(probabilities) == len(titles):
        raise ValueError(
            "`samples`, `probabilities` and `titles` must be as many as each other. "
            f"Received: {count}, {len(probabilities)} and {len(titles)}"
        )
    for array in probabilities:
        if np.ndim(array) != 2 or np.shape(array)[1] != len(class_names):
            raise ValueError(
                f"`probabilities` must be arrays (steps, {len(class_names)}), a column for each of "
                f"`class_names`. Received: shape {np.shape(array)}"
            )
    ratios = {"width_ratios": [1, 3] if shape else [1, 1.25]}
    figure, axes = subplots(count, 2, figsize=(8.5, 1.75 * count + 0.3), gridspec_kw=ratios)
    unit = 1.0 if sampling_rate is None else 1.0 / sampling_rate
    truths = [None] * count if truths is None else truths
    parts = zip(axes, samples, probabilities, titles, truths, strict=True)
    for row, sample, answers, title, truth in parts:
        sample, answers = np.asarray(sample), np.asarray(answers)
        if shape is not None:
            row[0].imshow(sample.reshape(shape), cmap=cmap)
            row[0].set(xticks=[], yticks=[])
        else:
            _signal(row[0], sample, unit)
        row[0].set_title(title, loc="left", fontsize=9)
        _curves(row[1], answers, len(sample) * unit, class_names, truth)
    axes[0, 1].set_title("probability, as the sample is read", loc="left", fontsize=9)
    label = "samples read" if sampling_rate is None else "seconds"
    axes[-1, 1].set_xlabel(label)
    if shape is None:
        axes[-1, 0].set_xlabel(label)
    figure.tight_layout()
    return figure


def _signal(axis, sample, unit):
    thin = -(-len(sample) // LONGEST)
    lines = {"linewidth": 0.7} if sample.ndim == 1 or sample.shape[1] > 1 else {"linewidth": 0.9}
    axis.plot(unit * np.arange(0, len(sample), thin), sample[::thin], **lines)
    axis.margins(x=0.01)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _curves(axis, answers, end, class_names, truth):
    steps = np.arange(1, len(answers) + 1) * end / len(answers)
    thin = -(-len(answers) // LONGEST)
    peaks = answers.max(axis=0).argsort()[::-1][:SHOWN]
    for number, index in enumerate(np.sort(peaks)):
        marker = "." if len(answers) < 40 else ""
        axis.plot(
            steps[::thin],
            answers[::thin, index],
            color=f"C{number}",
            linewidth=1.3,
            marker=marker,
            label=str(class_names[index]),
        )
    axis.set(xlim=(0, end), ylim=(-0.03 if truth is None else -0.12, 1.03))
    for number, index in enumerate(np.sort(peaks) if truth is not None else ()):
        occurrences = np.flatnonzero(np.asarray(truth) == index)
        begin = steps[occurrences] - end / len(answers)
        axis.hlines(
            np.full(len(occurrences), -0.08), begin, steps[occurrences], f"C{number}", linewidth=5
        )
    axis.tick_params(labelsize=8)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
