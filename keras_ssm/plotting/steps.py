from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.checks import check_number
from keras_ssm.models import Detection
from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # the most curves; classes with the highest peaks are drawn


def plot_step_predictions(
    signal: np.ndarray,
    probabilities: np.ndarray,
    labels: list[str] | None = None,
    sampling_rate: float | None = None,
    detections: list[Detection] = (),
    truth: np.ndarray | None = None,
) -> "Figure":
    """Plots a signal and, below it on the same axis of time, the answer of a model at each step.

    Args:
        signal: array `(samples,)` or `(samples, channels)`.
        probabilities: array `(steps,)` or `(steps, classes)`. After each step; fewer than the
            samples where a step takes several of them.
        labels: list of str or `None`. Names of the classes. Defaults to their numbers.
        sampling_rate: float or `None`. Samples in a second, for an axis of time in seconds.
            Defaults to `None`: samples.
        detections: list of `Detection`, as a `Detector` found them in these steps. They are shaded.
        truth: integer array `(steps,)` or `None`. The class of each step, drawn as bars.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for other shapes, another number of labels, or a `sampling_rate` that is not
            positive.

    Example:
        ```python
        wave = np.sin(np.linspace(0, 20, 400))
        plot_step_predictions(wave, np.clip(wave, 0, 1), labels=["up"], sampling_rate=100)
        ```
    """
    signal, probabilities = np.asarray(signal), np.asarray(probabilities)
    signal = signal[:, None] if signal.ndim == 1 else signal
    probabilities = probabilities[:, None] if probabilities.ndim == 1 else probabilities
    for name, array in (("signal", signal), ("probabilities", probabilities)):
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"`{name}` must be one sequence, of one or two axes. Received: shape {array.shape}"
            )
    samples, (steps, classes) = len(signal), probabilities.shape
    names = [str(i) for i in range(classes)] if labels is None else [str(name) for name in labels]
    if len(names) != classes:
        raise ValueError(f"`labels` must name {classes} classes. Received: labels={labels}")
    if sampling_rate is not None:
        check_number("sampling_rate", sampling_rate)
        if sampling_rate <= 0:
            raise ValueError(f"`sampling_rate` must be positive. Received: {sampling_rate}")
    if truth is not None and np.shape(truth) != (steps,):
        raise ValueError(
            f"`truth` must have shape ({steps},). Received: truth.shape={np.shape(truth)}"
        )
    unit = 1.0 if sampling_rate is None else 1.0 / sampling_rate
    stride = samples / steps * unit  # of time, from one step to the next
    ratios = {"height_ratios": [1, 1.2]}
    figure, axes = subplots(2, 1, figsize=(9, 4.4), sharex=True, gridspec_kw=ratios)
    above, below = axes[:, 0]
    above.plot(unit * np.arange(samples), signal, color="0.3", linewidth=0.7)
    above.set_ylabel("signal")
    colors = {}
    ends = stride * np.arange(1, steps + 1)
    order = np.nan_to_num(probabilities).max(axis=0).argsort()[::-1]
    for number, index in enumerate(np.sort(order[:SHOWN])):
        colors[int(index)] = f"C{number}"
        below.plot(ends, probabilities[:, index], color=f"C{number}", label=names[index])
    for event in detections:
        color = colors.get(event.label, "0.5")
        until = steps if event.end is None else event.end
        for axis in (above, below):
            axis.axvspan(stride * event.start, stride * until, color=color, alpha=0.15, linewidth=0)
        below.plot(stride * (event.peak + 1), event.score, "v", color=color, markersize=6)
    if truth is not None:
        for index, start, end in _runs(np.asarray(truth)):
            color = colors.get(index, "0.8")
            place = {"color": color, "linewidth": 5, "solid_capstyle": "butt"}
            below.plot([stride * start, stride * end], [-0.08, -0.08], **place)
    below.set(ylim=(-0.13 if truth is not None else -0.03, 1.03), ylabel="probability")
    below.set(xlim=(0, samples * unit), xlabel="samples" if sampling_rate is None else "seconds")
    below.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _runs(classes):
    """Tuples `(class, start, end)` of steps of one class."""
    changes = np.flatnonzero(np.diff(classes)) + 1
    starts, ends = [0, *changes.tolist()], [*changes.tolist(), len(classes)]
    return [(int(classes[start]), start, end) for start, end in zip(starts, ends, strict=True)]
