"""Layers of HazyResearch/spacetime: their state dicts as layers of this package, and back."""

from collections.abc import Mapping

import numpy as np
from keras import ops

from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file
from keras_ssm.layers import Differencing, SpaceTime
from keras_ssm.types import PathLike

NAMES = {"a": "a", "b": "B", "c": "C", "k": "K"}
FILTERS = ("diff_kernel", "ma_r_kernel")


def load_space_time(
    state_dict: Mapping[str, np.ndarray] | PathLike,
    prefix: str = "",
    norm_order: float = 1,
    skip: bool | None = None,
    dtype: str | None = None,
) -> SpaceTime | Differencing:
    """Makes a layer of the tensors of a published `CompanionSSM`, `ShiftSSM` or `ResidualSSM`.

    A layer with a row `k` is the closed loop of a decoder. It gets the published arithmetic:
    `normalization="published"`.

    Args:
        state_dict: dict from names to arrays, or the path of a file: a pickle of PyTorch, which is
            read without running anything in it, safetensors or npz.
        prefix: str. What stands before the names of the layer, such as `"encoder.blocks.0.ssm."`.
            Defaults to `""`.
        norm_order: float. That of the configuration, which the tensors do not say. Defaults to
            `1`, as published.
        skip: bool or `None`. Whether the layer has a skip. Its tensor is there in any case.
            Defaults to `None`: unless there is a `k`.
        dtype: dtype policy of the layer.

    Returns:
        A built `SpaceTime`, or a built `Differencing` for the filters in front of an encoder.

    Raises:
        ValueError: for tensors that are missing, or of shapes that do not go together.

    Example:
        ```python
        arrays = {name: np.ones((2, 8), "float32") for name in "abc"} | {"skip": np.ones(4)}
        layer = keras_ssm.convert.load_space_time(arrays)  # of 4 features, 2 to a system
        tensors = keras_ssm.convert.export_space_time(layer)
        ```

    Reference:
        [SpaceTime](https://github.com/HazyResearch/spacetime), model/ssm.
    """
    if not isinstance(state_dict, Mapping):
        state_dict = read_checkpoint_file(state_dict).tensors
    tensors = {
        name.removeprefix(prefix): np.asarray(value)
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if set(FILTERS) <= set(tensors):
        return _differencing(*(tensors[name] for name in FILTERS), dtype)
    needed = {"a", "b", "c", "skip"}
    shapes = {name: tensors[name].shape for name in needed | {"k"} if name in tensors}
    vectors = {shape for name, shape in shapes.items() if name != "skip"}
    copies = next(iter(vectors))[0] if len(vectors) == 1 and needed <= set(shapes) else 0
    if not copies or len(next(iter(vectors))) != 2 or shapes["skip"][0] % copies:
        raise ValueError(
            "`state_dict` must hold a, b and c (kernels, states), skip (features,) and for a "
            f"decoder k, after the prefix {prefix!r}. Received: {shapes or sorted(state_dict)[:8]}"
        )
    loop = "k" in tensors
    layer = SpaceTime(
        state_dim=shapes["a"][1],
        num_ssm=copies,
        norm_order=norm_order,
        skip=not loop if skip is None else skip,
        closed_loop=loop,
        normalization="published" if loop else "consistent",
        dtype=dtype,
    )
    layer.build((None, None, shapes["skip"][0]))
    for theirs, ours in NAMES.items():
        if theirs in tensors:
            weight = getattr(layer, ours)
            weight.assign(tensors[theirs].reshape(weight.shape).astype(weight.dtype))
    if layer.skips:
        layer.D.assign(tensors["skip"][None].astype(layer.D.dtype))
    return layer


def export_space_time(layer: SpaceTime | Differencing, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the tensors of a layer by their published names.

    Args:
        layer: built `SpaceTime` of one channel that reads forwards, or `Differencing` with
            `expand=False` whose features take whole turns.
        prefix: str. What goes before the names. Defaults to `""`.

    Returns:
        Dict from names to float32 arrays. A layer without skip has a `skip` of zeros, as the
        published one has one that is not used.

    Raises:
        ValueError: for a layer that the published classes do not cover.

    Reference:
        [SpaceTime](https://github.com/HazyResearch/spacetime), model/ssm.
    """
    layer.check_built()
    if isinstance(layer, Differencing):
        tensors = _filters(layer)
    else:
        published = layer.normalization == "published" or not layer.closed_loop
        if layer.channels != 1 or layer.bidirectional or not published:
            raise ValueError(
                "`layer` must read forwards, with one channel, and close its loop, if any, with "
                "normalization='published'. Received: "
                f"channels={layer.channels}, bidirectional={layer.bidirectional}, "
                f"normalization={layer.normalization!r}"
            )
        tensors = {"a": layer.a, "b": layer.B, "c": layer.C[0]}
        tensors |= {"k": layer.K} if layer.closed_loop else {}
        tensors["skip"] = layer.D[0] if layer.skips else np.zeros(layer.features)
    return {
        prefix + name: np.array(ops.convert_to_numpy(value), "float32")
        for name, value in tensors.items()
    }


def _differencing(differences, averages, dtype):
    orders = differences.shape[1]
    turns = len(differences) // orders
    layer = Differencing(
        orders,
        len(averages) // turns,
        min_window=min(4, averages.shape[1] - 1),
        max_window=averages.shape[1],
        dtype=dtype,
    )
    layer.build((None, None, len(differences) + len(averages)))
    rows = [
        np.pad(part, [(0, 0), (0, layer.max_length - part.shape[1])]).reshape(
            turns, -1, layer.max_length
        )
        for part in (differences, averages)
    ]
    taps = np.concatenate(rows, axis=1).reshape(layer.taps.shape)
    layer.taps.assign(taps.astype(layer.taps.dtype))
    return layer


def _filters(layer):
    count = layer.num_filters - layer.orders
    if layer.expand or layer.features % layer.num_filters or not count:
        raise ValueError(
            "`layer` must have moving averages, expand=False and features that take whole turns "
            f"of its {layer.num_filters} filters. Received: expand={layer.expand}, "
            f"features={layer.features}, windows={layer.windows}"
        )
    taps = ops.convert_to_numpy(layer.taps)[0].reshape(-1, layer.num_filters, layer.max_length)
    differences, averages = taps[:, : layer.orders], taps[:, layer.orders :]
    return {
        "diff_kernel": differences.reshape(-1, layer.max_length)[:, : layer.orders],
        "ma_r_kernel": averages.reshape(-1, layer.max_length),
    }
