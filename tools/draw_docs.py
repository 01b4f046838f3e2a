"""Draws the pictures of docs/images: `python tools/draw_docs.py`. They take about a minute."""

from pathlib import Path

import numpy as np
from keras import ops

from keras_ssm import initializers, plotting
from keras_ssm.layers import S4, S4D, S4PTD

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

STATE_DIM = 64

SYSTEMS = {
    "S4": S4,
    "S4D": S4D,
    'S4PTD "optimized"': S4PTD,
    'S4PTD "rank1"': lambda **kwargs: S4PTD(perturbation="rank1", **kwargs),
}


def main():
    IMAGES.mkdir(parents=True, exist_ok=True)
    pictures = {
        "initializations.png": plotting.plot_initializations(),
        "eigenvalues.png": plotting.plot_eigenvalues(built(dt=2e-3, features=1), list(SYSTEMS)),
        "frequency_response.png": frequency_response(),
        "kernels.png": kernels(),
    }
    for name, figure in pictures.items():
        figure.savefig(IMAGES / name, dpi=100)
        print(IMAGES / name)


def built(dt, features):
    """One layer of each system with the same step everywhere."""
    kwargs = {"state_dim": STATE_DIM, "dt_min": dt, "dt_max": dt, "seed": 0}
    layers = [system(**kwargs) for system in SYSTEMS.values()]
    for layer in layers:
        layer.build((None, None, features))
    return layers


def frequency_response(dt=1e-3):
    """Initial layers, the exact response of LegS, and the place of the largest spike."""
    figure = plotting.plot_frequency_response(built(dt, 32), list(SYSTEMS), length=32768)
    (axis,) = figure.axes
    frequency = np.geomspace(*axis.get_xlim(), 1000)
    state = initializers.legs_state_transfer(2j * np.pi * frequency / dt, STATE_DIM)
    exact = np.linalg.norm(state, axis=-1)
    axis.plot(frequency, exact, "k--", linewidth=0.9, label="HiPPO-LegS, exact")
    spike = STATE_DIM**2 / np.pi * dt / (2 * np.pi)
    axis.annotate("w = N²/π", (spike, 4), (spike, 7), ha="center", arrowprops={"arrowstyle": "->"})
    axis.set(ylim=(4e-3, 12), title=f"Frequency response before training, N = 64, dt = {dt}")
    axis.legend(frameon=False, loc="lower left")
    return figure


def kernels():
    """Kernels of an untrained layer whose features differ in dt alone."""
    steps = [1e-1, 3e-2, 1e-2, 3e-3, 1e-3]
    layer = S4D(state_dim=STATE_DIM, seed=0)
    layer.build((None, None, len(steps)))
    layer.log_dt.assign(np.log(steps)[:, None].astype("float32"))
    for part in (layer.C_real, layer.C_imag):
        part.assign(ops.repeat(part[:, :1], len(steps), axis=1))
    figure = plotting.plot_kernels(layer, length=4000, features=len(steps))
    for axis, dt in zip(figure.axes, steps, strict=True):
        axis.set_ylabel(f"dt = {dt}", rotation=0, labelpad=34, va="center")
        axis.axvline(2 / dt, color="C3", linestyle="--", linewidth=0.9)
        axis.set(xscale="log", xlim=(1, 4000), yticks=[])
    figure.axes[0].set_title("Kernels of S4D by dt; the line is at 2 / dt samples")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
