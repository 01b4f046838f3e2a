"""Pictures of what the experiments found, as matplotlib figures."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "s4": "S4",
    "s4d": "S4D",
    "s4d_legs": "S4D-LegS",
    "s4ptd": "S4-PTD, optimised",
    "s4ptd_rank1": "S4-PTD, rank 1",
    "s5": "S5",
    "s5ptd": "S5-PTD",
}


def plot_heard_waves(frequencies: np.ndarray, heard: dict[str, np.ndarray]) -> "Figure":
    """Plots what `heard_waves` returned: the answer of untrained layers to each frequency.

    Args:
        frequencies: array of angular frequencies.
        heard: dict from a system to its answers.

    Returns:
        `matplotlib.figure.Figure`.

    Example:
        ```python
        waves = np.geomspace(1, 650, 20)
        heard = keras_ssm.experiments.heard_waves(waves, ["s4d_legs", "s4ptd"], length=50)
        keras_ssm.experiments.plot_heard_waves(waves, heard).savefig("heard.png")
        ```
    """
    figure, axes = subplots(1, 1, figsize=(8, 4))
    axis = axes[0, 0]
    for system, levels in heard.items():
        axis.plot(frequencies, levels, linewidth=1.3, label=LABELS.get(system, system))
    axis.set(xscale="log", yscale="log", xlim=(min(frequencies), max(frequencies)))
    axis.set(xlabel="frequency of the wave (1 / dt)", ylabel="output (root mean square)")
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def plot_ptd_noise(rows: Iterable[dict]) -> "Figure":
    """Plots the rows of `ptd_noise`: accuracy over frequency and amplitude of the noise.

    A row of pictures for each form, a column for each system. Accuracies are means over the seeds.
    The dotted line is at the largest spike of S4D-LegS.

    Args:
        rows: rows of `noise.csv`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: without rows.

    Example:
        ```python
        rows = [
            {"form": "published", "system": "s4", "frequency": w, "amplitude": a, "accuracy": 0.9,
             "seed": 0, "images": 10}
            for w, a in [(0.0, 0.0), (10.0, 0.1), (20.0, 0.1), (10.0, 1.0), (20.0, 1.0)]
        ]
        keras_ssm.experiments.plot_ptd_noise(rows).savefig("noise.png")
        ```
    """
    rows = list(rows)
    if not rows:
        raise ValueError("`rows` must hold at least one row of a run. Received: none")
    forms, systems = (list(dict.fromkeys(row[key] for row in rows)) for key in ("form", "system"))
    systems.sort(key=lambda name: list(LABELS).index(name) if name in LABELS else len(LABELS))
    size = (1.2 + 1.7 * len(systems), 0.9 + 2.3 * len(forms))
    figure, axes = subplots(len(forms), len(systems), figsize=size, sharey=True)
    image = None
    for row_axes, form in zip(axes, forms, strict=True):
        for axis, system in zip(row_axes, systems, strict=True):
            cells = [row for row in rows if (row["form"], row["system"]) == (form, system)]
            if form == forms[0]:
                axis.set_title(LABELS.get(system, system), fontsize=9)
            image = _cells(axis, cells, labelled=form == forms[-1]) or image
        row_axes[0].set_ylabel(f"{form}\namplitude", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=axes.ravel().tolist(), fraction=0.03, pad=0.02, label="accuracy")
    return figure


def _cells(axis, rows, labelled):
    """A map of mean accuracies; returns the image, or nothing where there are no rows."""
    rows = [row for row in rows if row["amplitude"]]
    if not rows:
        axis.set_visible(False)
        return None
    waves, heights = (sorted({row[key] for row in rows}) for key in ("frequency", "amplitude"))
    fewest = min(row["images"] for row in rows)
    accuracies = np.full((len(heights), len(waves)), np.nan)
    for i, height in enumerate(heights):
        for j, wave in enumerate(waves):
            scores = [
                row["accuracy"]
                for row in rows
                if (row["frequency"], row["amplitude"], row["images"]) == (wave, height, fewest)
            ]
            accuracies[i, j] = np.mean(scores) if scores else np.nan
    image = axis.imshow(accuracies, origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axis.axvline(len(waves) - 2, color="white", linestyle=":", linewidth=0.8)
    shown = range(0, len(waves), 3)
    names = [f"{waves[i]:.3g}" if labelled else "" for i in shown]
    axis.set_xticks(shown, names, fontsize=7, rotation=60)
    axis.set_yticks(range(len(heights)), [f"{height:g}" for height in heights], fontsize=7)
    axis.set_xlabel("frequency" if labelled else "", fontsize=8)
    return image


def plot_playback_rate(rows: Iterable[dict]) -> "Figure":
    """Plots the rows of `playback_rate`: accuracy over the sampling rate, read in three ways.

    A line for each system, the mean over its runs.

    Args:
        rows: rows of `rates.csv`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: without rows.

    Example:
        ```python
        rows = [
            {"system": "s4d", "seed": 0, "rate": rate, "reading": "as it is", "accuracy": 0.9}
            for rate in (0.5, 1.0, 1.5)
        ]
        keras_ssm.experiments.plot_playback_rate(rows).savefig("rates.png")
        ```
    """
    rows = list(rows)
    if not rows:
        raise ValueError("`rows` must hold at least one row of a model. Received: none")
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure, axes = subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True)
    for axis, reading in zip(axes[0], ("as it is", "rescaled", "resampled back"), strict=True):
        for number, system in enumerate(systems):
            scores_by_rate = {}
            for row in rows:
                matches = (row["reading"], row["system"]) == (reading, system)
                # At its own rate a model reads the same samples in all three ways.
                unchanged = row["rate"] == 1 and row["system"] == system
                if matches or unchanged:
                    scores_by_rate.setdefault(row["rate"], []).append(row["accuracy"])
            if len(scores_by_rate) > 1:
                means = [np.mean(scores_by_rate[rate]) for rate in sorted(scores_by_rate)]
                label = LABELS.get(system, system.replace("_", " "))
                axis.plot(sorted(scores_by_rate), means, ".-", color=f"C{number}", label=label)
        axis.axvline(1, color="0.85", linewidth=0.8, zorder=0)
        axis.set(title=reading, xlabel="sampling rate / that of training", ylim=(0, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy")
    # Lines of all systems are in the first panel, room is in the second: only theirs stay high.
    lines = axes[0, 0].get_legend_handles_labels()
    axes[0, 1].legend(*lines, loc="lower center", frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
