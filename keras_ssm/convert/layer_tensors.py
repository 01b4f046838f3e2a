"""Single layers from the tensors of published ones, and back."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_ssm.atomic_file import writing_file
from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file, read_configuration
from keras_ssm.convert.containers.safetensors_file import write_stored
from keras_ssm.convert.formats import delta_fla, space_time
from keras_ssm.convert.mapping import check_floats
from keras_ssm.convert.tensors import Tensors
from keras_ssm.layers import DeltaNet, Differencing, SequenceMixer, SpaceTime
from keras_ssm.types import PathLike


def load_layer(
    source: PathLike | Mapping[str, np.ndarray],
    prefix: str = "",
    config: dict | PathLike | None = None,
    **overrides: object,
) -> DeltaNet | SpaceTime | Differencing:
    """Returns a layer that computes what a published one does.

    The published models of flash-linear-attention have a gated MLP after each such layer, which
    `SSMBlock` has not, and networks of SpaceTime add and mix otherwise. Their layers are read one
    by one.

    Args:
        source: str, `Path` or dict. A file of PyTorch, safetensors or npz, which is read as data,
            or a state dict of arrays: of `DeltaNet`, `GatedDeltaNet` or `GatedDeltaProduct` of
            fla-org/flash-linear-attention, or of `CompanionSSM`, `ShiftSSM`,
            `ClosedLoopCompanionSSM` or `ResidualSSM` of HazyResearch/spacetime.
        prefix: str. What stands before the names of the layer, such as
            `"model.layers.0.attn."`. Other tensors are left alone.
        config: dict, str or `Path`, or `None`. The configuration of the model or the layer by
            its published names, or a JSON or YAML file of it. A `NAME.json` beside the file is
            read as well.
        **overrides: Arguments of the layer that nothing else says, such as
            `neg_eigenvalues=False`, or `norm_order=2` and `skip=False` of `SpaceTime`, or those of
            `keras.layers.Layer`.

    Returns:
        `DeltaNet`, `SpaceTime` or, for the filters in front of an encoder, `Differencing`, built.
        A `SpaceTime` with a row `k` is the closed loop of a decoder and has the published
        arithmetic: `normalization="published"`.

    Raises:
        ValueError: for tensors that are missing, left over or of other shapes, an option that
            has no counterpart here, a contradicted argument, or no `neg_eigenvalues` where no
            configuration has it.

    Example:
        ```python
        layer = keras_ssm.layers.DeltaNet(heads=2, head_dim=4, seed=0)
        layer.build((None, None, 8))
        keras_ssm.convert.export_layer(layer, "layer.safetensors")
        again = keras_ssm.convert.load_layer("layer.safetensors")  # with layer.safetensors.json
        ```

    Reference:
        [flash-linear-attention](https://github.com/fla-org/flash-linear-attention),
        [SpaceTime](https://github.com/HazyResearch/spacetime).
    """
    hyper = {}
    if isinstance(source, Mapping):
        arrays = {name: np.asarray(value) for name, value in source.items()}
    else:
        file = read_checkpoint_file(source)
        arrays, hyper = file.tensors, file.hyper_parameters
    if isinstance(config, (str, Path)):
        config = read_configuration(config)
    arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    if not arrays:
        raise ValueError(
            f"`source` must hold tensors of a layer after the prefix {prefix!r}. Received: none"
        )
    format = space_time if space_time.TENSORS & set(arrays) else delta_fla
    return format.read_layer(Tensors(arrays), {**hyper, **(config or {})}, overrides)


def export_layer(
    layer: SequenceMixer | Differencing, path: PathLike, prefix: str = "", overwrite: bool = False
) -> dict:
    """Writes a layer as a state dict of the published one.

    Args:
        layer: built: `DeltaNet` without biases, `SpaceTime` of one channel that reads forwards, or
            `Differencing` with `expand=False` whose features take whole turns.
        path: str or `Path`. A file of safetensors, float32, with `NAME.json` beside it.
        prefix: str. What goes before the names of the tensors. Defaults to `""`.
        overwrite: bool. Whether files in its place are replaced. Defaults to `False`.

    Returns:
        dict. The arguments of the published class, which `NAME.json` holds, with the
        `model_type` that names it: `"delta_net"`, `"gated_deltanet"`, `"gated_deltaproduct"`,
        `"companion"`, `"closed_loop_companion"` or `"residual"`.

    Raises:
        ValueError: for a layer that the published classes do not cover or that is quantised, or
            something at the destination without `overwrite`.

    Example:
        See `load_layer`.
    """
    if not isinstance(layer, (DeltaNet, SpaceTime, Differencing)) or not layer.built:
        raise ValueError(
            "`layer` must be a DeltaNet, SpaceTime or Differencing that is built. "
            f"Received: layer={layer!r} of {type(layer).__name__}"
        )
    check_floats(layer)
    path = Path(path)
    beside = path.with_name(path.name + ".json")
    present = [place.name for place in (path, beside) if place.exists()]
    if present and not overwrite:
        raise ValueError(
            "The destination must be new, or `overwrite` must be True to replace it. "
            f"Received: '{present[0]}', which is there"
        )
    format = delta_fla if isinstance(layer, DeltaNet) else space_time
    tensors, config = format.write_layer(layer)
    stored = {prefix + name: (x.shape, "F32", lambda x=x: x) for name, x in tensors.items()}
    with writing_file(path) as file:
        write_stored(file, stored)
        with writing_file(beside) as text:
            text.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return config
