from typing import TYPE_CHECKING

import numpy as np

from keras_ssm.initializers.diagonal import COMBINATIONS, INITS, diagonal
from keras_ssm.plotting.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_initializations(
    inits: list[str] | None = None, state_dim: int = 64, steps: tuple[float, float] = (1e-3, 1e-1)
) -> "Figure":
    """Plots the frequencies that diagonal systems start with: one column for each name.

    Below each name stands the real part: a mode of -1/2 decays to 1/e within two units of time,
    that is, 2 / dt samples.

    Args:
        inits: str, list of str or `None`. Names of `keras_ssm.initializers.diagonal`. Defaults to
            `None`: all but the mixtures.
        state_dim: int. Even size of the full state. Defaults to `64`.
        steps: sequence of float. Values of dt; a line shows the Nyquist frequency pi / dt of
            each, beyond which a mode turns by more than half a circle a sample. Defaults to
            `(1e-3, 1e-1)`, the default range of the layers.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for an unknown name or a size that `diagonal` refuses.

    Example:
        ```python
        plot_initializations(["legs", "lin", "inv"])
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    if isinstance(inits, str):
        inits = [inits]
    if inits is None:
        inits = [name for name in INITS if name not in COMBINATIONS]
    figure, axes = subplots(1, 1, figsize=(0.75 * len(inits) + 1.5, 4.2))
    axis = axes[0, 0]
    ticks = []
    for column, name in enumerate(inits):
        A = diagonal(name, state_dim, seed=0)[0][0]
        axis.scatter(
            np.full(len(A), column), np.abs(A.imag), marker="_", s=260, color="C0", alpha=0.8
        )
        slow, fast = np.abs(A.real).min(), np.abs(A.real).max()
        span = f"-{slow:.3g}" if fast - slow < 1e-9 else f"-{slow:.3g} .. -{fast:.3g}"
        ticks.append(f"{name}\n{span}")
    axis.set_yscale("symlog", linthresh=1)
    for dt in steps:
        axis.axhline(np.pi / dt, color="C3", linewidth=0.8, linestyle="--")
        position = {"xy": (1.0, np.pi / dt), "xycoords": ("axes fraction", "data")}
        axis.annotate(
            f"Nyquist at\ndt = {dt:g}", **position, color="C3", fontsize=8, va="center", ha="left"
        )
    axis.set(xlim=(-0.6, len(inits) - 0.4), ylabel="|Im A| (radians per unit of time)")
    axis.set_ylim(bottom=-0.15)
    axis.set_xticks(range(len(inits)), ticks, fontsize=8)
    axis.set_xlabel("initialization, and Re A below it")
    axis.set_title(f"Frequencies of the {state_dim // 2} modes")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    figure.tight_layout()
    return figure
