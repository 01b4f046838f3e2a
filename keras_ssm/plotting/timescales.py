from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_number
from keras_ssm.layers import S4, KernelLayer, MIMOLayer, SequenceMixer, SpaceTime, SSMLayer
from keras_ssm.plotting.eigenvalues import eigenvalues
from keras_ssm.plotting.figures import layers_and_labels, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
LONGEST = 1e9  # samples: a longer time scale counts as endless


def plot_timescales(
    layers: keras.layers.Layer | list[keras.layers.Layer],
    labels: str | list[str] | None = None,
    sampling_rate: float | None = None,
) -> "Figure":
    """Plots how long each layer remembers: the time scales that its modes have and those it uses.

    The time scale of a mode is how many samples it takes to fall to 1/e: -1 / log |dA|, which is
    1 / (|Re A| dt) of a mode under `"zoh"`. The filled curve counts the modes. The line weighs each
    by the energy of its own part of the kernel, |C dB|^2 / (1 - |dA|^2): what the outputs take
    from it. The modes of `S4` have no such part, since they largely cancel each other, and are
    only counted. Modes of a `DSS` with a softmax that grow count by the time in which they do.

    Args:
        layers: built layer of the family, backbone or task model, or a list of them.
        labels: list of str or `None`. Names of the layers. Defaults to `None`, `"layer 0"` and so
            on.
        sampling_rate: float or `None`. Samples in a second, for an axis in seconds. Defaults to
            `None`: samples.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, one that is not built, another number of labels, a
            `sampling_rate` that is not positive, or a layer such as `Mamba`, whose steps and time
            scales depend on what it reads.

    Example:
        ```python
        plot_timescales(model, sampling_rate=64)
        ```

    Reference:
        [HiPPO](https://arxiv.org/abs/2008.07669), on time scales.
    """
    if sampling_rate is not None:
        check_number("sampling_rate", sampling_rate)
        if sampling_rate <= 0:
            raise ValueError(f"`sampling_rate` must be positive. Received: {sampling_rate}")
    parts = layers if isinstance(layers, (list, tuple)) else [layers]
    for layer in parts:
        _refuse_others(layer)
    strides = [_stride(layer) for layer in parts for _ in layers_and_labels(layer, None)[0]]
    layers, labels = layers_and_labels(layers, labels)
    unit = 1.0 if sampling_rate is None else 1.0 / sampling_rate
    scales_of_layers = [
        (unit * stride * scales, weights)
        for stride, (scales, weights) in zip(strides, map(time_scales, layers), strict=True)
    ]
    finite = np.concatenate([scales[scales < LONGEST * unit] for scales, _ in scales_of_layers])
    low, high = finite.min() / 1.3, finite.max() * 1.3
    edges = np.geomspace(low, high, BINS + 1)
    figure, axes = subplots(
        len(layers), 1, figsize=(7, 1.2 * len(layers) + 1), sharex=True, sharey=True
    )
    for axis, (scales, weights), label in zip(axes[:, 0], scales_of_layers, labels, strict=True):
        scales = np.clip(scales, low, high)
        has = np.histogram(scales, edges)[0] / len(scales)
        axis.stairs(has, edges, fill=True, color="C0", alpha=0.35, label="modes")
        if weights is not None:
            uses = np.histogram(scales, edges, weights=weights)[0]
            axis.stairs(uses, edges, color="C1", linewidth=1.5, label="energy of the kernel")
        axis.set(xscale="log", ylabel=label, yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0, 0].set_title("Time scales: what the modes have, and what the outputs take")
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes[0, 0].legend(frameon=False, fontsize=8, **place)
    axes[-1, 0].set_xlabel(f"time to fall to 1/e ({'samples' if unit == 1.0 else 'seconds'})")
    figure.tight_layout()
    return figure


def time_scales(layer: SSMLayer) -> tuple[np.ndarray, np.ndarray | None]:
    """The time scales of the modes of a layer, in its steps, and how much each contributes.

    Args:
        layer: built layer of the family.

    Returns:
        Tuple of two arrays `(modes,)`: samples in which a mode falls to 1/e, and shares that sum
        to 1; the second is `None` for `S4` and `SpaceTime`, whose modes cancel each other.
    """
    if isinstance(layer, (S4, SpaceTime)):
        dA, weights = eigenvalues(layer)[1], None
    elif isinstance(layer, MIMOLayer):
        (real, imag), dB = layer.discrete_matrices()
        dA = np.exp(_complex(real, imag))
        C = _complex(*np.split(_array(layer.output_matrices()), 2, axis=-1))
        B = _complex(*np.split(_array(dB), 2, axis=-1))
        weights = (np.abs(C) ** 2).sum(axis=(0, 1)) * (np.abs(B) ** 2).sum(axis=0)
    else:
        bank = layer.bank(getattr(layer, "softmax_length", None) or 1)
        dA = np.exp(_complex(*bank.log_dA))
        weights = (np.abs(_complex(*bank.C) * _complex(*bank.dB)) ** 2).sum(axis=0)
        dA, weights = dA.ravel(), weights.ravel()
    rate = np.abs(np.log(np.maximum(np.abs(dA), 1e-30)))
    scales = 1.0 / np.maximum(rate, 1.0 / LONGEST)
    if weights is None:
        return scales, None
    weights = weights / -np.expm1(-2.0 / scales)
    return scales, weights / weights.sum()


def _refuse_others(layer):
    if not isinstance(layer, keras.layers.Layer):
        return
    for part in [layer, *layer._flatten_layers(include_self=False)]:
        if isinstance(part, SequenceMixer) and not isinstance(part, SSMLayer):
            raise ValueError(
                "`layers` must be time-invariant: where the inputs choose the steps, time scales "
                f"change from sample to sample. Received: {part.name}, a {type(part).__name__}"
            )
        if isinstance(part, KernelLayer):
            raise ValueError(
                "`layers` must have modes, whose time scales are drawn: a layer that holds its "
                f"kernel has none. Received: {part.name}, a {type(part).__name__}"
            )


def _stride(layer):
    """Samples to a step of a layer within this one."""
    return getattr(getattr(layer, "backbone", layer), "stride", 1)


def _complex(real, imag):
    return _array(real) + 1j * _array(imag)


def _array(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")
