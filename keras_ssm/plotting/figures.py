"""Shared by the pictures: the layers to be drawn, and figures without a display."""

import keras

from keras_ssm.layers import S4ND, SSMLayer


def layers_and_labels(layers, labels):
    """The state-space layers that are meant, in order, and their names.

    Args:
        layers: layer, block, model, or a list of them.
        labels: list of str, str or `None`.

    Returns:
        Tuple of two lists.

    Raises:
        ValueError: for something else, layers that are not built, or another number of labels.
    """
    parts = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    all_layers = []
    for part in parts:
        inside = _inside(part) if isinstance(part, keras.layers.Layer) else []
        if not inside or not all(layer.built for layer in inside):
            raise ValueError(
                "`layers` must be a built state-space layer, a model of such, or a list of them. "
                f"Received: layers={layers}"
            )
        all_layers += inside
    if not all_layers:
        raise ValueError(f"`layers` must hold at least one built layer. Received: layers={layers}")
    if labels is None:
        return all_layers, [f"layer {number}" for number in range(len(all_layers))]
    labels = [labels] if isinstance(labels, str) else list(labels)
    if len(labels) != len(all_layers):
        raise ValueError(f"`labels` must name {len(all_layers)} layers. Received: labels={labels}")
    return all_layers, labels


def _inside(layer):
    """The state-space layers of a layer or model, in their order, each once; of axes each one."""
    if isinstance(layer, S4ND):
        return list(layer.axis_layers)
    if isinstance(layer, SSMLayer):
        return [layer]
    parts = layer._flatten_layers(include_self=False, recursive=False)
    inner_layers = [inner for part in parts for inner in _inside(part)]
    return list({id(inner): inner for inner in inner_layers}.values())


def subplots(rows, columns, **kwargs):
    """A figure that needs no display, and an array of its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**{key: kwargs.pop(key) for key in ("figsize",) if key in kwargs})
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)
