"""Pictures of systems and predictions, as matplotlib figures."""

import numpy as np
from keras import ops

from keras_ssm.initializers.diagonal import COMBINATIONS, INITS, diagonal
from keras_ssm.layers import DSS, S4, S4D, S5
from keras_ssm.ops.discretize import RULES


def plot_kernels(layer, length=64, features=6):
    """Plots convolution kernels of a layer: how long and how each feature remembers.

    Args:
        layer: a built state-space layer with `kernel`: all but `S5` and `S5PTD`.
        length: int. Steps. Defaults to `64`.
        features: int. How many features, spread over the layer. Defaults to `6`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for a layer without `kernel`, or one that is not built.

    Example:
        ```python
        plot_kernels(model.backbone.blocks[0].mixer).savefig("kernels.png")
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), equation 3.
    """
    _check_kernel(layer)
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


def plot_eigenvalues(layers, labels=None):
    """Plots the eigenvalues of layers: continuous on the left, per sample on the right.

    Conjugates are drawn where the layer has them: those of a real system. The eigenvalues of
    `S4` are those of its dense matrix A - P P^H, as far as floating point finds them: HiPPO-LegS
    itself has -1, ..., -N, and rounding alone moves the larger ones off the real axis.

    Args:
        layers: list of built layers of the family, bidirectional ones included.
        labels: list of str or `None`. Their names in the legend. Defaults to `None`, `"layer 0"`
            and so on.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, a layer that is not built or has no eigenvalues, or another
            number of labels.

    Example:
        ```python
        plot_eigenvalues([block.mixer for block in model.backbone.blocks])
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    labels = _checked(layers, labels)
    found = [_eigenvalues(layer) for layer in layers]
    figure, axes = _subplots(1, 2, figsize=(11, 4.6))
    left, right = axes.ravel()
    left.set(yscale="symlog", xlabel="Re A (per unit of time)", ylabel="Im A (per unit of time)")
    if min(continuous.real.min() for continuous, _ in found) < -10:
        left.set_xscale("symlog")
    few = sum(len(continuous) for continuous, _ in found) <= 1000
    style = {"s": 16 if few else 4, "alpha": 0.7 if few else 0.5, "linewidths": 0}
    for number, ((continuous, discrete), label) in enumerate(zip(found, labels, strict=True)):
        style["color"] = f"C{number}"
        left.scatter(continuous.real, continuous.imag, **style)
        right.scatter(discrete.real, discrete.imag, label=label, **style)
    left.axvline(0, color="0.6", linewidth=0.8)
    left.set_title("Continuous: decay and frequency")
    angle = np.linspace(0, 2 * np.pi, 400)
    right.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=0.8)
    right.set(aspect="equal", xlabel="Re dA", ylabel="Im dA")
    right.set_title("Discrete, and the unit circle")
    scale = 1.5 if few else 3
    right.legend(markerscale=scale, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def plot_frequency_response(layers, labels=None, length=16384, features=0):
    """Plots how strongly layers pass each frequency: the magnitude of their kernels' spectrum.

    A thick line is the root mean square over all outputs of a layer. The skip D, which passes
    all frequencies alike, is left out. Of a bidirectional layer both directions count. Of a softmax
    `DSS` the kernel for sequences of `length` steps is shown.

    Args:
        layers: list of built layers with `kernel`: all but `S5` and `S5PTD`.
        labels: list of str or `None`. Their names in the legend. Defaults to `None`, `"layer 0"`
            and so on.
        length: int. Steps of the kernels; longer than their memory, or the curves have ripples.
            Defaults to `16384`.
        features: int. How many single outputs, spread over each layer, are drawn as thin lines.
            Defaults to `0`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, a layer that is not built or has no `kernel`, or another
            number of labels.

    Example:
        ```python
        plot_frequency_response([block.mixer for block in model.backbone.blocks], length=2048)
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), theorem 2, for the spikes of S4D-LegS.
    """
    labels = _checked(layers, labels)
    figure, axes = _subplots(1, 1, figsize=(8, 4.2))
    axis = axes[0, 0]
    frequencies = np.fft.rfftfreq(length)[1:]
    for number, (layer, label) in enumerate(zip(layers, labels, strict=True)):
        _check_kernel(layer)
        magnitude = _magnitudes(layer, length)[:, 1:]
        chosen = np.unique(np.linspace(0, len(magnitude) - 1, features).astype(int))
        for index in chosen:
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


def plot_initializations(inits=None, state_dim=64, steps=(1e-3, 1e-1)):
    """Plots the frequencies that diagonal systems start with: one column for each name.

    Below each name stands the real part: a mode of -1/2 decays to 1/e within two units of time,
    that is, 2 / dt samples.

    Args:
        inits: list of str or `None`. Names of `keras_ssm.initializers.diagonal`. Defaults to
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
    if inits is None:
        inits = [name for name in INITS if name not in COMBINATIONS]
    figure, axes = _subplots(1, 1, figsize=(0.75 * len(inits) + 1.5, 4.2))
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
        place = {"xy": (1.0, np.pi / dt), "xycoords": ("axes fraction", "data")}
        axis.annotate(
            f"Nyquist at\ndt = {dt:g}", **place, color="C3", fontsize=8, va="center", ha="left"
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


def _checked(layers, labels):
    """The labels, after a look at the layers."""
    if not layers or not all(getattr(layer, "built", False) for layer in layers):
        raise ValueError(
            f"`layers` must be a list of built layers. Received: layers={list(layers)}"
        )
    if labels is None:
        return [f"layer {number}" for number in range(len(layers))]
    if len(labels) != len(layers):
        raise ValueError(
            f"`labels` must name {len(layers)} layers. Received: labels={list(labels)}"
        )
    return labels


def _check_kernel(layer):
    if not hasattr(layer, "kernel"):
        raise ValueError(
            "Kernels and their spectra need a layer with a system for each feature, not `S5`. "
            f"Received: {layer.name}, a {type(layer).__name__}"
        )


def _eigenvalues(layer):
    """Continuous and discrete eigenvalues of a layer, flat complex arrays."""
    if isinstance(layer, S5):
        Lambda, dt = layer.eigenvalues(), ops.exp(layer.tensor(layer.log_dt))
        one = layer.tensor(1.0), layer.tensor(0.0)
        log_dA, _ = RULES[layer.discretization](Lambda, one, dt * layer.tensor(layer.step_scale))
        found = _complex(*Lambda), np.exp(_complex(*log_dA))
        return tuple(map(_with_conjugates, found)) if layer.conj_sym else found
    if isinstance(layer, DSS):
        return _complex(*layer.eigenvalues()), np.exp(_complex(*layer.bank(1).log_dA))
    if isinstance(layer, S4):
        E = ops.convert_to_numpy(layer.bank().matrices()[0]).astype("float64")
        return np.linalg.eigvals(_dense(layer)).ravel(), 1.0 + np.linalg.eigvals(E).ravel()
    if isinstance(layer, S4D):
        A = _complex(-ops.exp(layer.tensor(layer.log_A_real)), layer.A_imag)
        return _with_conjugates(A), _with_conjugates(np.exp(_complex(*layer.bank().log_dA)))
    raise ValueError(
        f"`layers` must be layers of the family, which have eigenvalues. "
        f"Received: {layer.name}, a {type(layer).__name__}"
    )


def _dense(layer):
    """A - P P^H of an S4 layer, on states of real parts, then imaginary parts."""
    real = -np.exp(ops.convert_to_numpy(layer.log_A_real).astype("float64"))
    imag = ops.convert_to_numpy(layer.A_imag).astype("float64")
    eye = np.eye(layer.modes)
    top = np.concatenate([real[..., None] * eye, -imag[..., None] * eye], axis=-1)
    bottom = np.concatenate([imag[..., None] * eye, real[..., None] * eye], axis=-1)
    P = np.concatenate([ops.convert_to_numpy(part) for part in (layer.P_real, layer.P_imag)], -1)
    return np.concatenate([top, bottom], axis=-2) - 2.0 * np.einsum("rhi,rhj->hij", P, P)


def _magnitudes(layer, length):
    """Absolute value of the spectrum of each output's kernel, `(outputs, length // 2 + 1)`."""
    spectrum = np.fft.rfft(ops.convert_to_numpy(layer.kernel(length)).astype("float64"))
    if layer.bidirectional:
        past, future = spectrum
        # The first entry of the future is the sample after the current one.
        ahead = np.exp(2j * np.pi * np.fft.rfftfreq(length))
        spectrum = past + ahead * future.conj()
    return np.abs(spectrum).reshape(-1, length // 2 + 1)


def _complex(real, imag):
    real, imag = (ops.convert_to_numpy(part).astype("float64") for part in (real, imag))
    return (real + 1j * imag).ravel()


def _with_conjugates(values):
    return np.concatenate([values, values.conj()])


def _subplots(rows, columns, **kwargs):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**{key: kwargs.pop(key) for key in ("figsize",) if key in kwargs})
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)
