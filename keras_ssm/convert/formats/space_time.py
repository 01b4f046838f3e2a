"""Tensors of one layer of HazyResearch/spacetime: companion, shift, closed loop and residual."""

import numpy as np

from keras_ssm.convert.formats.torch_arrays import array
from keras_ssm.layers import Differencing, SpaceTime

NAMES = {"a": "a", "b": "B", "c": "C", "k": "K"}
FILTERS = ("diff_kernel", "ma_r_kernel")
TENSORS = {*NAMES, "skip", *FILTERS}
METHODS = ("companion", "closed_loop_companion", "residual")


def read_layer(tensors, config, overrides):
    """The layer of these tensors, built, with its weights.

    A layer with a row `k` is the closed loop of a decoder. It gets the published arithmetic:
    `normalization="published"`.

    Args:
        tensors: `Tensors`, by the names within the layer.
        config: dict. Fields of the published configuration, or `{}`.
        overrides: dict. Arguments of `SpaceTime` or `Differencing` that go over it.
    """
    if set(FILTERS) <= set(tensors.arrays):
        layer, weights = _differencing(*(tensors[name] for name in FILTERS), overrides)
    else:
        layer, weights = _space_time(tensors, config, overrides)
    for weight, value in weights:
        if not np.isfinite(value).all():
            raise ValueError(f"Every tensor must be finite. Received: that of `{weight.name}`")
        weight.assign(value.reshape(weight.shape).astype(weight.dtype))
    unused = tensors.unused()
    if unused:
        raise ValueError(f"Every tensor must be one of the layer. Received: {', '.join(unused)}")
    return layer


def write_layer(layer):
    """The tensors of a layer, and its configuration.

    A layer without skip has a `skip` of zeros, as the published one has one that is not used.

    Returns:
        Tuple `(tensors, config)` of dicts.

    Raises:
        ValueError: for a layer that the published classes do not cover.
    """
    if isinstance(layer, Differencing):
        return _filters(layer), {"model_type": "residual", "model_dim": layer.features}
    published = layer.normalization == "published" or not layer.closed_loop
    if layer.channels != 1 or layer.bidirectional or not published:
        raise ValueError(
            "`layer` must read forwards, with one channel, and close its loop, if any, with "
            "normalization='published'. Received: "
            f"channels={layer.channels}, bidirectional={layer.bidirectional}, "
            f"normalization={layer.normalization!r}"
        )
    tensors = {"a": array(layer.a), "b": array(layer.B), "c": array(layer.C)[0]}
    tensors |= {"k": array(layer.K)} if layer.closed_loop else {}
    tensors["skip"] = array(layer.D)[0] if layer.skips else np.zeros(layer.features, "float32")
    return tensors, {
        "model_type": METHODS[layer.closed_loop],
        "model_dim": layer.features,
        "n_kernels": len(tensors["a"]),
        "kernel_dim": layer.state_dim,
        "norm_order": layer.norm_order,
        "skip_connection": layer.skips,
    }


def _space_time(tensors, config, overrides):
    needed = {"a", "b", "c", "skip"}
    shapes = {name: tensors.shape(name) for name in needed | {"k"} if name in tensors}
    vectors = {shape for name, shape in shapes.items() if name != "skip"}
    copies = next(iter(vectors))[0] if len(vectors) == 1 and needed <= set(shapes) else 0
    if not copies or len(next(iter(vectors))) != 2 or shapes["skip"][0] % copies:
        raise ValueError(
            "A layer of SpaceTime must hold a, b and c (kernels, states), skip (features,) and "
            f"for a decoder k. Received: {shapes or sorted(tensors.arrays)[:8]}"
        )
    loop = "k" in tensors
    arguments = {
        "state_dim": shapes["a"][1],
        "num_ssm": copies,
        "closed_loop": loop,
        "normalization": "published" if loop else "consistent",
    }
    for name, value in arguments.items():
        if overrides.get(name, value) != value:
            raise ValueError(
                f"`{name}` must be {value!r}, as the tensors have it. "
                f"Received: {name}={overrides[name]!r}"
            )
    # Its tensor is there in any case.
    skips = {"skip": config.get("skip_connection", not loop)}
    chosen = {"norm_order": config.get("norm_order", 1), **skips, **overrides}
    layer = SpaceTime(**{**chosen, **arguments})
    layer.build((None, None, shapes["skip"][0]))
    weights = [(getattr(layer, NAMES[name]), tensors[name]) for name in NAMES if name in tensors]
    skip = tensors["skip"]
    return layer, weights + ([(layer.D, skip)] if layer.skips else [])


def _differencing(differences, averages, overrides):
    orders = differences.shape[1]
    turns = len(differences) // orders
    windows = {"min_window": min(4, averages.shape[1] - 1), "max_window": averages.shape[1]}
    layer = Differencing(orders, len(averages) // turns, **{**windows, **overrides})
    layer.build((None, None, len(differences) + len(averages)))
    rows = [
        np.pad(part, [(0, 0), (0, layer.max_length - part.shape[1])]).reshape(
            turns, -1, layer.max_length
        )
        for part in (differences, averages)
    ]
    return layer, [(layer.taps, np.concatenate(rows, axis=1))]


def _filters(layer):
    count = layer.num_filters - layer.orders
    if layer.expand or layer.features % layer.num_filters or not count:
        raise ValueError(
            "`layer` must have moving averages, expand=False and features that take whole turns "
            f"of its {layer.num_filters} filters. Received: expand={layer.expand}, "
            f"features={layer.features}, windows={layer.windows}"
        )
    taps = array(layer.taps)[0].reshape(-1, layer.num_filters, layer.max_length)
    differences, averages = taps[:, : layer.orders], taps[:, layer.orders :]
    return {
        "diff_kernel": differences.reshape(-1, layer.max_length)[:, : layer.orders],
        "ma_r_kernel": averages.reshape(-1, layer.max_length),
    }
