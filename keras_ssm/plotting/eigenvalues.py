from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from keras_ssm.layers import DSS, S4, S4D, MIMOLayer, SpaceTime
from keras_ssm.ops import companion_matrix
from keras_ssm.plotting.figures import layers_and_labels, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_eigenvalues(
    layers: keras.layers.Layer | list[keras.layers.Layer], labels: str | list[str] | None = None
) -> "Figure":
    """Plots the eigenvalues of layers: continuous on the left, per sample on the right.

    Conjugates are drawn where the layer has them: those of a real system. The eigenvalues of
    `S4` are those of its dense matrix A - P P^H, as far as floating point finds them: HiPPO-LegS
    itself has -1, ..., -N, and rounding alone moves the larger ones off the real axis.

    Args:
        layers: built layer of the family, backbone or task model, or a list of them.
        labels: list of str or `None`. Names of the layers in the legend. Defaults to `None`,
            `"layer 0"` and so on.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: for no layers, a layer that is not built or has no eigenvalues, or another
            number of labels.

    Example:
        ```python
        plot_eigenvalues(model)
        ```

    Reference:
        [S4D](https://arxiv.org/abs/2206.11893), section 4.
    """
    layers, labels = layers_and_labels(layers, labels)
    spectra = [eigenvalues(layer) for layer in layers]
    figure, axes = subplots(1, 2, figsize=(11, 4.6))
    left, right = axes.ravel()
    left.set(yscale="symlog", xlabel="Re A (per unit of time)", ylabel="Im A (per unit of time)")
    if min(continuous.real.min() for continuous, _ in spectra) < -10:
        left.set_xscale("symlog")
    is_small = sum(len(continuous) for continuous, _ in spectra) <= 1000
    style = {"s": 16 if is_small else 4, "alpha": 0.7 if is_small else 0.5, "linewidths": 0}
    for number, ((continuous, discrete), label) in enumerate(zip(spectra, labels, strict=True)):
        style["color"] = f"C{number}"
        left.scatter(continuous.real, continuous.imag, **style)
        right.scatter(discrete.real, discrete.imag, label=label, **style)
    left.axvline(0, color="0.6", linewidth=0.8)
    left.set_title("Continuous: decay and frequency")
    angle = np.linspace(0, 2 * np.pi, 400)
    right.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=0.8)
    right.set(aspect="equal", xlabel="Re dA", ylabel="Im dA")
    right.set_title("Discrete, and the unit circle")
    scale = 1.5 if is_small else 3
    right.legend(markerscale=scale, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def eigenvalues(layer):
    """Continuous and discrete eigenvalues of a layer, flat complex arrays."""
    if isinstance(layer, MIMOLayer):
        values = _complex(*layer.eigenvalues()), np.exp(_complex(*layer.discrete_matrices()[0]))
        return tuple(map(_with_conjugates, values)) if layer.conj_sym else values
    if isinstance(layer, DSS):
        return _complex(*layer.eigenvalues()), np.exp(_complex(*layer.bank(1).log_dA))
    if isinstance(layer, S4):
        E = ops.convert_to_numpy(layer.bank().matrices()[0]).astype("float64")
        return np.linalg.eigvals(_dense(layer)).ravel(), 1.0 + np.linalg.eigvals(E).ravel()
    if isinstance(layer, SpaceTime):
        values = np.linalg.eigvals(_array(companion_matrix(layer.systems().a))).ravel()
        values = values.astype("complex128")
        return np.log(values), values
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


def _array(part):
    return ops.convert_to_numpy(part).astype("float64")


def _complex(real, imag):
    return (_array(real) + 1j * _array(imag)).ravel()


def _with_conjugates(values):
    return np.concatenate([values, values.conj()])
