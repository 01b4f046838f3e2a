"""Draws the pictures of docs/tasks/audio.md and biosignals.md: `python tools/draw_signals.py`."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from keras import ops

from keras_ssm.layers import RandomGain, RandomNoise, RandomShift, RandomTimeMask

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def main():
    mpl.use("Agg")
    for name, figure in {"augmentation.png": augmentation(), "beats.png": beats()}.items():
        figure.savefig(IMAGES / name, dpi=100)
        print(IMAGES / name)


def augmentation():
    """A chirp, and what each layer makes of it in training."""
    from matplotlib import pyplot as plt

    t = np.linspace(0, 1, 800)
    x = (np.sin(2 * np.pi * (4 + 12 * t) * t) * np.sin(np.pi * t) ** 2).astype("float32")
    layers = [
        RandomGain(0.3, 3.0, seed=5),
        RandomShift(200, seed=5),
        RandomNoise(0.5, seed=5),
        RandomTimeMask(0.3, num_masks=2, seed=5),
    ]
    figure, axes = plt.subplots(5, 1, figsize=(8, 6.5), sharex=True, sharey=True)
    rows = [("as it is", x)]
    for layer in layers:
        y = ops.convert_to_numpy(layer(x[None, :, None], training=True))[0, :, 0]
        rows.append((type(layer).__name__, y))
    for axis, (name, y) in zip(axes, rows, strict=True):
        axis.plot(t, y, linewidth=0.9)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    return figure


def beats():
    """A row of two seconds before a peak and 0.6 s behind it, where the beat comes too early."""
    from matplotlib import pyplot as plt

    rng, rate = np.random.default_rng(1), 360
    peaks = np.array([0.4, 1.2, 2.0, 2.55, 3.6, 4.4]) * rate
    time = np.arange(5 * rate)
    x = np.exp(-(((time[:, None] - peaks) / 8.0) ** 2)).sum(axis=1) + rng.normal(0, 0.02, len(time))
    figure, axis = plt.subplots(figsize=(8, 2.8))
    axis.plot(time / rate, x, linewidth=0.9)
    axis.axvspan(0.55, 3.15, color="tab:orange", alpha=0.2, label="the row of the beat at 2.55 s")
    axis.annotate("0.55 s", (2.28, 1.08), ha="center")
    axis.annotate("0.8 s", (1.6, 1.08), ha="center")
    axis.set(xlabel="seconds", ylabel="mV", ylim=(-0.2, 1.4))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper right")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
